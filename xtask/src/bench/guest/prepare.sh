# Run in the new root while it is built: makes what the works need, once, so that all contenders find the same.
set -e
cd /bench
gcc -O2 -o crypto crypto.c -lcrypto
openssl genrsa -out rsa.pem 2048 2>/dev/null
openssl ecparam -name prime256v1 -genkey -noout -out ec.pem

# The kernel's source, without drivers and other architectures, but with every Kconfig and Makefile: they name each other.
mkdir unpacked
tar -xJf /usr/src/linux-source-6.1.tar.xz -C unpacked \
    --exclude='*/drivers/*.[ch]' --exclude='*/sound/*.[ch]' --exclude='*/fs/*/*.c' --exclude='*/tools/testing/*' \
    --exclude='*/Documentation/*.rst' --exclude='*/Documentation/*.txt' --exclude='*/arch/[a-wyz]*/*.[chS]' \
    --exclude='*.dts' --exclude='*.dtsi'
mv unpacked/* linux
rmdir unpacked
rm /usr/src/linux-source-6.1.tar.xz

# Configured and prepared where the works will build it.
mkdir /tmp/build
make -s -C linux O=/tmp/build ARCH=i386 tinyconfig >/dev/null 2>&1
make -s -C linux O=/tmp/build ARCH=i386 prepare >/dev/null 2>&1
tar -C /tmp -cf build.tar build
rm -r /tmp/build
rm -rf /var/cache/apt /var/lib/apt/lists
