#!/usr/bin/env python3
# Field tables that must not compile, and why; beside each, the one that must.
# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

# Each: name, members of struct s, the row, what the compiler must complain about (None: nothing).
CASES = [
    ("u8", "uint8_t m;", "FIELD(struct s, m, 1)", None),
    ("u64", "uint64_t m;", "FIELD(struct s, m, 1, .since = 2)", None),
    ("bool", "bool m;", "FIELD(struct s, m, 1, .flags = STATE_OPTIONAL)", None),
    ("array", "uint16_t m[4];", "FIELD_ARRAY(struct s, m, 1)", None),
    ("list", "uint32_t n; uint8_t m[4];", "FIELD_LIST(struct s, m, n, 1)", None),
    ("blob", "struct { int a; } m;", 'FIELD_BLOB(struct s, m, 1, "a")', None),
    ("pad", "uint8_t m[4];", "FIELD_PAD(struct s, m)", None),
    ("signed 32", "int32_t m;", "FIELD(struct s, m, 1)", "_Generic"),
    ("signed 8", "int8_t m;", "FIELD(struct s, m, 1)", "_Generic"),
    ("char", "char m;", "FIELD(struct s, m, 1)", "_Generic"),
    ("double", "double m;", "FIELD(struct s, m, 1)", "_Generic"),
    ("pointer", "uint8_t *m;", "FIELD(struct s, m, 1)", "_Generic"),
    ("bit field", "uint32_t m : 3;", "FIELD(struct s, m, 1)", "bit"),
    ("no such member", "uint8_t m;", "FIELD(struct s, x, 1)", "no member"),
    ("array as scalar", "uint8_t m[4];", "FIELD(struct s, m, 1)", "_Generic"),
    ("pointer as array", "uint8_t *m;", "FIELD_ARRAY(struct s, m, 1)", "must be an array"),
    ("signed array", "int16_t m[4];", "FIELD_ARRAY(struct s, m, 1)", "_Generic"),
    ("two dimensions", "uint8_t m[2][2];", "FIELD_ARRAY(struct s, m, 1)", "_Generic"),
    ("pointer as list", "uint32_t n; uint8_t *m;", "FIELD_LIST(struct s, m, n, 1)",
     "must be an array"),
    ("signed count", "int32_t n; uint8_t m[4];", "FIELD_LIST(struct s, m, n, 1)",
     "must be a uint32_t"),
    ("narrow count", "uint16_t n; uint8_t m[4];", "FIELD_LIST(struct s, m, n, 1)",
     "must be a uint32_t"),
    ("wide count", "uint64_t n; uint8_t m[4];", "FIELD_LIST(struct s, m, n, 1)",
     "must be a uint32_t"),
    ("struct", "struct t { uint8_t a; } m;", "FIELD_STRUCT(struct s, m, 1, NULL)", None),
    ("scalar as struct", "uint8_t m;", "FIELD_STRUCT(struct s, m, 1, NULL)",
     "must be a struct"),
    ("pointer to struct", "struct t { uint8_t a; } *m;", "FIELD_STRUCT(struct s, m, 1, NULL)",
     "must be a struct"),
    ("pointer as structs", "uint32_t n; struct t { uint8_t a; } *m;",
     "FIELD_STRUCT_LIST(struct s, m, n, 1, NULL)", "must be an array"),
    ("scalar as blob", "uint32_t m;", 'FIELD_BLOB(struct s, m, 1, "a")', "must be a struct"),
    ("pointer as blob", "void *m;", 'FIELD_BLOB(struct s, m, 1, "a")', "must be a struct"),
    ("pointer as padding", "uint8_t *m;", "FIELD_PAD(struct s, m)", "must be an array"),
    ("words as padding", "uint32_t m[2];", "FIELD_PAD(struct s, m)", "must be an array of uint8"),
]

SOURCE = """
#include "state/state.h"
struct s {{ {members} }};
const struct state_field fields[] = {{ {row} }};
"""


def main():
    compiler = sys.argv[1:]
    print(f"1..{len(CASES)}")
    for number, (name, members, row, complaint) in enumerate(CASES, 1):
        run = subprocess.run(compiler + ["-x", "c", "-fsyntax-only", "-"],
                             input=SOURCE.format(members=members, row=row), text=True,
                             capture_output=True, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"})
        ok = run.returncode == 0 if complaint is None else (
            run.returncode != 0 and complaint in run.stderr)
        print(f"{'ok' if ok else 'not ok'} {number} - {name}")
        if not ok:
            print("".join(f"# {line}\n" for line in run.stderr.splitlines()))


main()
