//! The full suite: every class of work that a guest may do, in 26 rows.
//!
//! All work is fixed, where the programs that are usually run would work for a fixed time: `openssl speed` is replaced
//! by a program of our own over the same library, 7-Zip's benchmark (six seconds at the least) by its archiver, zstd's
//! by a compression and decompression, building a whole kernel by two objects of it, and fio is told how many bytes.
//! Sizes are such that the bare host takes some tenths of a second or a second, so that a slow contender ends within a
//! minute.

use super::suite::{Class, Doing, Work};

/// What cannot be measured yet.
pub const LEFT_OUT: &[(u8, &str, &str)] = &[];

/// A run of fio over the scratch disk: directly in a guest, and through the page cache on the bare host, where the file
/// is what both machines read as well.
macro_rules! fio {
    ($options:literal) => {
        concat!(
            "direct=0\n[ -b scratch ] && direct=1\n",
            "fio --name=a --thread --filename=/tmp/scratch --readonly --direct=$direct --invalidate=0 --size=256m ",
            "--ioengine=libaio --randseed=1 --minimal --output=/dev/null ",
            $options
        )
    };
}

/// Takes mappings away that two processes use.
const SHOOTDOWN: &str = "stress-ng -q --tlb-shootdown 2 --tlb-shootdown-ops 1000";

/// Compiles a part of the kernel, two files at a time.
const LOCKING: &str = "cd build\nrm -f kernel/locking/*.o\n\
    make -s -j2 ARCH=i386 kernel/locking/mutex.o kernel/locking/semaphore.o kernel/locking/rwsem.o kernel/locking/percpu-rwsem.o\n\
    size -B kernel/locking/*.o";

/// Its works.
pub const WORKS: &[Work] = &[
    Work::script(
        1,
        "7zip",
        Class::Integer,
        "7zz -mx1, 3 MiB and back",
        "head -c 3145728 /usr/bin/perf >plain",
        "rm -f a.7z\n7zz a -mmt1 -mx1 -md22 a.7z plain >/dev/null\n7zz x -so a.7z | cksum",
    )
    .quick(),
    Work::script(
        2,
        "zstd",
        Class::Integer,
        "zstd -3, 5 x 9 MB and back",
        "",
        "for i in 1 2 3 4 5; do zstd -q -f -3 -o packed /usr/bin/perf; zstd -dc packed | cksum; done",
    ),
    Work::script(
        3,
        "primes",
        Class::Integer,
        "sysbench cpu, 500 x 20000",
        "",
        "sysbench cpu --cpu-max-prime=20000 --events=500 --time=0 run | grep 'number of events'",
    )
    .quick(),
    Work::script(4, "aes-gcm", Class::Simd, "AES-256-GCM, 512 MiB", "", "/bench/crypto aes-256-gcm 512").quick(),
    Work::script(4, "sha256", Class::Simd, "SHA-256, 256 MiB", "", "/bench/crypto sha256 256"),
    Work::script(4, "chacha20", Class::Simd, "ChaCha20-Poly1305, 256 MiB", "", "/bench/crypto chacha20-poly1305 256"),
    Work::script(5, "rsa", Class::Simd, "RSA-2048, 500 signatures", "", "/bench/crypto sign /bench/rsa.pem 500").quick(),
    Work::script(5, "ecdsa", Class::Simd, "ECDSA P-256, 10000 signatures", "", "/bench/crypto sign /bench/ec.pem 10000"),
    Work::script(
        6,
        "x264",
        Class::Simd,
        "ffmpeg, x264 medium, 150 frames of 640x360",
        "",
        "ffmpeg -v error -f lavfi -i testsrc2=size=640x360:rate=30 -frames:v 150 -c:v libx264 -preset medium -threads 1 -f md5 -",
    )
    .quick(),
    Work::script(
        7,
        "longdouble",
        Class::Float,
        "stress-ng cpu longdouble, 300",
        "",
        "stress-ng -q --cpu 1 --cpu-method longdouble --cpu-ops 300",
    )
    .quick(),
    Work::script(
        7,
        "matrixprod",
        Class::Float,
        "stress-ng cpu matrixprod, 200",
        "",
        "stress-ng -q --cpu 1 --cpu-method matrixprod --cpu-ops 200",
    ),
    Work::script(
        8,
        "python",
        Class::Interpreter,
        "python3, Fibonacci, 10M rounds",
        "printf 'def f(n):\\n a,b=0,1\\n for i in range(n): a,b=b,(a+b)&0xffffffff\\n return a\\nprint(f(10000000))\\n' >f.py",
        "python3 f.py",
    )
    .quick(),
    Work::script(
        8,
        "perl",
        Class::Interpreter,
        "perl, 20M rounds",
        "",
        "perl -e 'my $s=0; for(my $i=0;$i<20000000;$i++){$s+=$i&7} print \"$s\\n\"'",
    ),
    Work::script(
        9,
        "luajit",
        Class::Jit,
        "luajit, 500M rounds",
        "",
        "luajit -e 'local t=0 for i=1,5e8 do t=t+i%7 end print(t)'",
    ),
    Work::script(
        9,
        "node",
        Class::Jit,
        "node, fib(38)",
        "",
        "node -e 'function f(n){return n<2?n:f(n-1)+f(n-2)};console.log(f(38))'",
    )
    .quick(),
    Work::script(
        10,
        "sqlite",
        Class::Integer,
        "sqlite3, sum over 3M rows",
        "",
        "sqlite3 :memory: 'WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<3000000) SELECT sum(x*x%7) FROM c;'",
    )
    .quick(),
    Work::script(
        11,
        "kbuild",
        Class::Compile,
        "make, two objects of Linux 6.1",
        "tar -xf /bench/build.tar",
        "cd build\nrm -f kernel/locking/*.o\n\
         make -s ARCH=i386 kernel/locking/mutex.o kernel/locking/semaphore.o\n\
         size -B kernel/locking/*.o",
    )
    .quick(),
    Work::script(
        12,
        "getppid",
        Class::Syscall,
        "perf bench syscall, 1M",
        "",
        "perf bench syscall basic -l 1000000 >/dev/null",
    )
    .quick(),
    Work::script(
        12,
        "dd",
        Class::Syscall,
        "dd, 500k 1-byte reads and writes",
        "",
        "dd if=/dev/zero of=/dev/null bs=1 count=500000",
    ),
    Work::script(
        13,
        "exec",
        Class::Fork,
        "bash, 300 fork+exec of true",
        "",
        "bash -c 'for i in $(seq 300); do /bin/true; done'",
    )
    .quick(),
    Work::script(13, "fork", Class::Fork, "stress-ng fork, 1000", "", "stress-ng -q --fork 1 --fork-ops 1000"),
    Work::script(
        14,
        "pipe",
        Class::Switch,
        "perf bench sched pipe, 40k",
        "",
        "perf bench sched pipe -l 40000 >/dev/null",
    )
    .quick(),
    Work::script(14, "hackbench", Class::Switch, "hackbench, 2 groups x 100", "", "hackbench -g 2 -l 100 >/dev/null"),
    Work::script(15, "fault", Class::Fault, "stress-ng fault, 8000", "", "stress-ng -q --fault 1 --fault-ops 8000").quick(),
    Work::script(
        15,
        "mmap",
        Class::Fault,
        "stress-ng mmap, 4 x 16 MiB",
        "",
        "stress-ng -q --mmap 1 --mmap-bytes 16M --mmap-ops 4",
    ),
    Work::script(
        16,
        "sigsegv",
        Class::Signal,
        "stress-ng sigsegv, 100k",
        "",
        "stress-ng -q --sigsegv 1 --sigsegv-ops 100000",
    )
    .quick(),
    Work::script(16, "sigfpe", Class::Signal, "stress-ng sigfpe, 80k", "", "stress-ng -q --sigfpe 1 --sigfpe-ops 80000"),
    Work::script(
        17,
        "memcpy",
        Class::Bandwidth,
        "mbw memcpy, 24 x 64 MiB",
        "",
        "mbw -q -t0 -n 24 64 >/dev/null",
    )
    .quick(),
    Work::script(17, "dumb", Class::Bandwidth, "mbw dumb, 24 x 64 MiB", "", "mbw -q -t1 -n 24 64 >/dev/null"),
    Work::script(
        17,
        "perf-memcpy",
        Class::Bandwidth,
        "perf bench memcpy, 10 x 128 MB",
        "",
        "perf bench mem memcpy -s 128MB -l 10 -f default >/dev/null",
    ),
    Work::script(
        18,
        "random",
        Class::Latency,
        "sysbench memory, random over 64 MiB",
        "",
        "sysbench memory --memory-access-mode=rnd --memory-block-size=64M --memory-total-size=256M --time=0 run | \
         grep 'Total operations' | cut -d '(' -f 1",
    )
    .quick(),
    Work::script(
        19,
        "shootdown",
        Class::Smp,
        "stress-ng tlb-shootdown on 2, 1000",
        "",
        SHOOTDOWN,
    )
    .on_two()
    .quick(),
    Work::script(
        19,
        "shootdown-one",
        Class::Smp,
        "stress-ng tlb-shootdown on one, 1000",
        "",
        SHOOTDOWN,
    ),
    Work::script(
        19,
        "kbuild-two",
        Class::Smp,
        "make -j2, four objects of Linux 6.1",
        "tar -xf /bench/build.tar",
        LOCKING,
    )
    .on_two(),
    Work::script(19, "kbuild-one", Class::Smp, "make -j2 on one, four objects of Linux 6.1", "tar -xf /bench/build.tar", LOCKING),
    Work::script(
        20,
        "ftrace",
        Class::Patching,
        "function tracer on and off",
        "mkdir -p /sys/kernel\n[ -d /sys/kernel/tracing ] || mount -t sysfs sys /sys\n\
         [ -e /sys/kernel/tracing/current_tracer ] || mount -t tracefs tracefs /sys/kernel/tracing",
        "cd /sys/kernel/tracing\necho function >current_tracer\necho nop >current_tracer\n\
         cat current_tracer",
    )
    .guests_only()
    .quick(),
    disk("disk-read", "fio, sequential 128 KiB at depth 32, 512 MiB", fio!("--rw=read --bs=128k --iodepth=32 --io_size=512m")).quick(),
    disk("disk-random", "fio, random 4 KiB at depth 32, 64 MiB", fio!("--rw=randread --bs=4k --iodepth=32 --io_size=64m")),
    disk("disk-single", "fio, random 4 KiB at depth 1, 32 MiB", fio!("--rw=randread --bs=4k --iodepth=1 --io_size=32m")),
    transfer("iperf", "iperf3, 1 GiB to the machine through a forwarded port", false).quick(),
    transfer("iperf-back", "iperf3, 1 GiB from the machine through a forwarded port", true),
    Work::script(
        23,
        "redis",
        Class::Server,
        "redis over loopback, 3 x 2000 requests",
        "",
        "redis-server --port 6399 --save '' --daemonize yes >/dev/null\n\
         until redis-cli -p 6399 ping >/dev/null 2>&1; do :; done\n\
         redis-benchmark -p 6399 -q -t ping_mbulk,set,get -n 2000 >/dev/null\n\
         redis-cli -p 6399 get key:__rand_int__\n\
         redis-cli -p 6399 shutdown nosave",
    )
    .quick(),
    machine(24, "boot", Class::Boot, "start of the VMM to init", Doing::Boot { to_end: false }).quick(),
    machine(24, "boot-end", Class::Boot, "start of the VMM to its end", Doing::Boot { to_end: true }),
    machine(25, "idle", Class::Idle, "processor time of a minute, tickless", Doing::Idle { append: "" }).quick(),
    machine(
        25,
        "idle-ticks",
        Class::Idle,
        "processor time of a minute, 250 ticks a second",
        Doing::Idle { append: "nohz=off highres=off" },
    ),
    machine(26, "firmware", Class::Boot, "start of the VMM through SeaBIOS to a boot loader", Doing::Firmware).quick(),
];

/// A work on the scratch disk, all of which has been read before.
const fn disk(key: &'static str, what: &'static str, run: &'static str) -> Work {
    Work::script(21, key, Class::Disk, what, "cat scratch >/dev/null", run)
}

/// A transfer between the host and a machine, whose threads have all of the host's processors, as the other side needs one.
const fn transfer(key: &'static str, what: &'static str, back: bool) -> Work {
    let doing = Doing::Transfer { back };
    Work { row: 22, key, what, class: Class::Network, doing, native: true, cpus: 1, quick: false }
}

/// Something that only machines do.
const fn machine(row: u8, key: &'static str, class: Class, what: &'static str, doing: Doing) -> Work {
    Work { row, key, what, class, doing, native: false, cpus: 1, quick: false }
}
