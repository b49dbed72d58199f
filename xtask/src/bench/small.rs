//! The small suite: user programs of many sorts, as a first look.

use super::suite::{Class, Work};

/// Its works.
pub const WORKS: &[Work] = &[
    Work::script(
        1,
        "bash",
        Class::Interpreter,
        "bash loop, 200k",
        "",
        "bash -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'",
    )
    .quick(),
    Work::script(
        2,
        "python",
        Class::Interpreter,
        "python3, 1M iterations",
        "",
        "python3 -c 'print(sum(i*i%7 for i in range(1000000)))'",
    )
    .quick(),
    Work::script(
        3,
        "perl",
        Class::Interpreter,
        "perl hash appends, 300k",
        "",
        "perl -e '$h{$_%1000}.=$_ for 1..300000; print length $h{7}'",
    )
    .quick(),
    Work::script(4, "sha256sum", Class::Simd, "sha256sum, 32 MiB", "", "head -c 33554432 /dev/zero | sha256sum").quick(),
    Work::script(
        5,
        "gzip",
        Class::Integer,
        "gzip -6, 4 MiB",
        "",
        "seq 700000 | head -c 4194304 | gzip -6 | wc -c",
    )
    .quick(),
    Work::script(
        6,
        "xz",
        Class::Integer,
        "xz -1 and back",
        "",
        "seq 4000000 | head -c 20971520 | xz -1 | xz -d | wc -c",
    ),
    Work::script(
        7,
        "aes",
        Class::Simd,
        "openssl aes-256-ctr, 64 MiB",
        "",
        "head -c 67108864 /dev/zero | openssl enc -aes-256-ctr -k x -pbkdf2 -nosalt | cksum",
    )
    .quick(),
    Work::script(
        8,
        "sqlite",
        Class::Integer,
        "sqlite3, in memory",
        "",
        "sqlite3 :memory: 'create table t(a); with recursive c(x) as (select 1 union all select x+1 from c where x<200000) \
         insert into t select x*7919%100003 from c; create index i on t(a); select count(distinct a) from t'",
    )
    .quick(),
    Work::script(
        9,
        "gcc",
        Class::Compile,
        "gcc -O2, one small file",
        "",
        "echo 'int f(int n){int s=0;for(int i=0;i<n;i++)s+=i*i;return s;}' | gcc -O2 -x c -c -o /dev/null -",
    )
    .quick(),
    Work::script(
        10,
        "fork",
        Class::Fork,
        "300 fork+exec of true",
        "",
        "bash -c 'i=0; while [ $i -lt 300 ]; do /bin/true; i=$((i+1)); done'",
    )
    .quick(),
    Work::script(
        11,
        "dd",
        Class::Syscall,
        "dd, 500k 1-byte reads and writes",
        "",
        "dd if=/dev/zero of=/dev/null bs=1 count=500000",
    )
    .quick(),
    Work::script(
        12,
        "touch",
        Class::Fault,
        "perl touching 5 x 64 MiB",
        "",
        "perl -e 'for(1..5){my $x=chr(1)x(64<<20);}'",
    )
    .quick(),
    Work::script(13, "yes", Class::Syscall, "yes to head to tail, 3M lines", "", "yes | head -n 3000000 | tail -n 1"),
    Work::script(
        14,
        "qsort",
        Class::Float,
        "qsort and floating-point loop",
        "printf '#include <stdio.h>\\n#include <stdlib.h>\\nstatic int c(const void *a, const void *b) { int x = *(int *)a, \
         y = *(int *)b; return (x > y) - (x < y); }\\nint main(void) { int n = 300000; int *a = malloc(n * sizeof *a); \
         unsigned r = 1; for (int i = 0; i < n; i++) { r = r * 1103515245 + 12345; a[i] = r >> 8; } qsort(a, n, sizeof *a, c); \
         double s = 0; for (int i = 1; i < 10000000; i++) s += 1.0 / i; printf(\"%%d %%f\\\\n\", a[n / 2], s); }\\n' \
         > /tmp/qsort.c && gcc -O2 -o /tmp/qsort /tmp/qsort.c",
        "/tmp/qsort",
    )
    .quick(),
    Work::script(
        15,
        "tmpfs",
        Class::Bandwidth,
        "dd 200 MiB into tmpfs",
        "",
        "dd if=/dev/zero of=/tmp/zeroes bs=1M count=200 && rm /tmp/zeroes",
    )
    .quick(),
];
