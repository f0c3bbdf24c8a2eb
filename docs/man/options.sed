# What `hakmem options` prints, as paragraphs of a manual page.
s/\\/\\e/g
s/-/\\-/g
s/^(\\-\\-[^ ]+) +\((.*)\)$/.TP\
\\fB\1\\fR \\ (\2)/
s/^ +([.'])/\\\&\1/
s/^ +//
