"""What people name as the source of a version, and how it becomes the files of one."""
