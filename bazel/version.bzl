"""The version of what is installed, in its one place."""

# Semantic: the first number changes when programs have to be linked anew. It is
# the number in the soname.
VERSION = "0.1.0"

# The day of that version, on the manual pages and on the files of packages.
RELEASED = "2026-11-24"

SONAME = "libhakmem.so." + VERSION.split(".")[0]
