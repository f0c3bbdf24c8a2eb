"""The version of what is installed, in its one place."""

# Semantic: the first number changes when programs have to be linked anew. It is
# the number in the soname.
VERSION = "0.1.0"

SONAME = "libhakmem.so." + VERSION.split(".")[0]
