"""What an installation holds, laid out as it lies below the prefix."""

load("//bazel:version.bzl", "RELEASED", "SONAME", "VERSION")

# In the templates of a tree. What depends on where it is installed is put in
# then: see layout.py.
_SUBSTITUTIONS = {
    "@RELEASED@": RELEASED,
    "@SONAME@": SONAME,
    "@VERSION@": VERSION,
}

def _file_of(target):
    """The one file of a target: a program, or what a rule makes."""
    executable = target[DefaultInfo].files_to_run.executable
    return executable if executable else target[DefaultInfo].files.to_list()[0]

def _install_tree_impl(ctx):
    outputs = []
    root = ctx.label.name + "/"
    for target, path in ctx.attr.files.items():
        output = ctx.actions.declare_file(root + path)
        ctx.actions.symlink(output = output, target_file = _file_of(target))
        outputs.append(output)
    for target, path in ctx.attr.templates.items():
        output = ctx.actions.declare_file(root + path)
        ctx.actions.expand_template(
            output = output,
            substitutions = _SUBSTITUTIONS,
            template = _file_of(target),
        )
        outputs.append(output)
    links = ctx.actions.declare_file(root + "links")
    ctx.actions.write(
        output = links,
        content = "".join([
            "%s %s\n" % (path, target)
            for path, target in ctx.attr.links.items()
        ]),
    )
    outputs.append(links)
    return [DefaultInfo(
        files = depset(outputs),
        runfiles = ctx.runfiles(files = outputs),
    )]

install_tree = rule(
    implementation = _install_tree_impl,
    attrs = {
        "files": attr.label_keyed_string_dict(
            allow_files = True,
            doc = "Each file, and its path below the prefix.",
        ),
        "links": attr.string_dict(doc = "Each symbolic link, and what it says."),
        "templates": attr.label_keyed_string_dict(
            allow_files = True,
            doc = "As `files`, with the names between @ replaced.",
        ),
    },
    doc = "The folder NAME with everything that an installation holds, and a list of links.",
)
