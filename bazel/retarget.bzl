"""Targets that build another target for a stage, compiler or sanitizer of their own.

With them one `bazel test //...` covers builds that would otherwise each need a
command line with its own --config.
"""

_COMPILER = "//command_line_option:compiler"
_SUFFIX = "//command_line_option:platform_suffix"
_SANITIZER = "//config:sanitizer"
_STAGE = "//config:stage"

_SETTINGS = [_COMPILER, _SUFFIX, _SANITIZER, _STAGE]

def _retarget_impl(settings, attr):
    sanitized = attr.compiler in ["asan", "ubsan", "tsan"]
    return {
        _COMPILER: attr.compiler,
        # Same outputs, whichever --config the command line has.
        _SUFFIX: "",
        _SANITIZER: attr.compiler if sanitized else "none",
        _STAGE: attr.stage or settings[_STAGE],
    }

_retarget = transition(
    implementation = _retarget_impl,
    inputs = [_STAGE],
    outputs = _SETTINGS,
)

_ATTRS = {
    "compiler": attr.string(
        default = "gcc",
        doc = "Toolchain of //bazel/toolchain that builds it.",
        values = ["gcc", "clang", "asan", "ubsan", "tsan", "fuzzer"],
    ),
    "stage": attr.string(doc = "//config:stage to build it for; the command line's if empty."),
    "_allowlist_function_transition": attr.label(
        default = "@bazel_tools//tools/allowlists/function_transition_allowlist",
    ),
}

def _link_program(ctx, name):
    """Returns a link of that name to the program, and the files it runs with.

    The program itself is not among those: it has the same path in the runfiles
    whatever it was built for, so two builds of it in one test would be one.
    """

    # A transition makes the attribute a list, here always of one.
    info = ctx.attr.program[0][DefaultInfo]
    program = info.files_to_run.executable
    link = ctx.actions.declare_file(name)
    ctx.actions.symlink(output = link, target_file = program, is_executable = True)
    files = [file for file in info.default_runfiles.files.to_list() if file != program]
    return link, ctx.runfiles(files = files + [link])

def _retargeted_binary_impl(ctx):
    link, runfiles = _link_program(ctx, ctx.label.name)
    return [DefaultInfo(executable = link, runfiles = runfiles)]

retargeted_binary = rule(
    implementation = _retargeted_binary_impl,
    attrs = dict(
        _ATTRS,
        program = attr.label(cfg = _retarget, executable = True, mandatory = True),
    ),
    doc = "The cc_binary `program`, built for `stage` by `compiler`.",
    executable = True,
)

def _quote(text):
    return "'" + text.replace("'", "'\\''") + "'"

def _retargeted_test_impl(ctx):
    program, runfiles = _link_program(ctx, ctx.label.name + ".program")
    runfiles = runfiles.merge(ctx.runfiles(files = ctx.files.data))
    for target in ctx.attr.data:
        runfiles = runfiles.merge(target[DefaultInfo].default_runfiles)
    words = []
    if ctx.attr.runner:
        runner = ctx.attr.runner[DefaultInfo]
        words.append(runner.files_to_run.executable.short_path)
        runfiles = runfiles.merge(runner.default_runfiles)
    words.append(program.short_path)

    script = ctx.actions.declare_file(ctx.label.name)
    exports = ["export %s=%s" % (name, _quote(value)) for name, value in ctx.attr.env.items()]
    ctx.actions.write(
        output = script,
        content = "\n".join(["#!/bin/bash"] + exports + [
            # GoogleTest passes when its filter selects nothing.
            'if [[ " $*" == *" --gtest_filter="* ]] &&',
            "    ! %s --gtest_list_tests \"$@\" | grep -q '^  '; then" %
            _quote("./" + program.short_path),
            '  echo "no test is selected by $*" >&2',
            "  exit 1",
            "fi",
            "exec " + " ".join([_quote("./" + word) for word in words]) + ' "$@"',
            "",
        ]),
        is_executable = True,
    )
    return [DefaultInfo(executable = script, runfiles = runfiles)]

retargeted_test = rule(
    implementation = _retargeted_test_impl,
    attrs = dict(
        _ATTRS,
        data = attr.label_list(allow_files = True, doc = "Files the test reads."),
        env = attr.string_dict(doc = "Environment of the program."),
        program = attr.label(cfg = _retarget, executable = True, mandatory = True),
        runner = attr.label(
            cfg = "target",
            doc = "A program that is given `program` and `args`, to run it under something.",
            executable = True,
        ),
    ),
    doc = "Runs the cc_test or cc_binary `program`, built for `stage` by `compiler`.",
    test = True,
)

def _compile_test_impl(ctx):
    compiled = depset(transitive = [
        # The objects, not the program: that would link.
        getattr(target[OutputGroupInfo], "compilation_outputs", target[DefaultInfo].files)
        for target in ctx.attr.targets
    ])
    script = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.write(
        output = script,
        content = "#!/bin/bash\n# It is here, so the targets were compiled.\n",
        is_executable = True,
    )
    return [DefaultInfo(
        executable = script,
        runfiles = ctx.runfiles(transitive_files = compiled),
    )]

compile_test = rule(
    implementation = _compile_test_impl,
    attrs = dict(
        _ATTRS,
        targets = attr.label_list(cfg = _retarget, mandatory = True),
    ),
    doc = "Passes when each of the cc_* `targets` compiles by `compiler`; links nothing.",
    test = True,
)
