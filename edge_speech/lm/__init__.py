"""N-gram language models: scored in C++, estimated here with numpy."""
