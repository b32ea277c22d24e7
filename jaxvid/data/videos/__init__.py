"""Long-video data: from a folder of video files to a data set."""
