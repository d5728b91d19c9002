"""Compile in other processes what a run will need, before it begins.

The compiler works in one thread of a process, whatever the number of threads that ask it. So a few
processes share the steps of a run, call the compiled functions of each step on a few made-up samples, and
leave the code in the cache.
"""
