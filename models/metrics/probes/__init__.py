"""What rows of frames know: phases and progress, correspondence in time, retrieval, alignment."""
