"""The contract of a system, the systems (one file each), and what builds and scores them (torch)."""
