# What a contender runs while it is measured: waits for a line, does the work that it names, waits again.
#
#   host:   setup NAME | run NAME | quit
#   guest:  bench: begin             just before
#           bench: end STATUS        just after
#           bench: said LINE         what it printed last, if it failed
#           bench: answer CHECKSUM   of its output
#           bench: done
#
# Lines that do not begin so are the kernel's.
export PATH=/usr/bin:/bin:/usr/sbin:/sbin HOME=/tmp TMPDIR=/tmp LC_ALL=C.UTF-8
cd /tmp
ip link set lo up
stty -echo 2>/dev/null
echo "bench: ready"
while read -r verb name; do
    case $verb in
        setup | run) ;;
        *) break ;;
    esac
    echo "bench: begin"
    sh -e "works/$name.$verb" >out 2>err </dev/null
    status=$?
    echo "bench: end $status"
    [ $status = 0 ] || tail -q -n 8 err out | sed 's/^/bench: said /'
    echo "bench: answer $(cksum <out | tr ' ' -)"
    echo "bench: done"
done
