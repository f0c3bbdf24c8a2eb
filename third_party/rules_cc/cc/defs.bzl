"""The part of rules_cc that Bazel 4.2's own BUILD files load.

Those names are built into this Bazel, so no more than a re-export is needed,
and nothing has to be fetched.
"""

cc_binary = native.cc_binary
cc_import = native.cc_import
cc_library = native.cc_library
cc_proto_library = native.cc_proto_library
cc_test = native.cc_test
cc_toolchain = native.cc_toolchain
cc_toolchain_suite = native.cc_toolchain_suite
objc_library = native.objc_library
