//! What tests of networks have on the host's side: data and servers, and for taps a network namespace of their own, so that
//! nothing of the host's own network is changed. [`Namespace`] takes root; lodge runs in it as an ordinary user.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use rustix::thread::LinkNameSpaceType;

/// An ordinary user's number: nobody's, who owns nothing but what a test gives him.
pub const ORDINARY: u32 = 65534;
/// The address of a tap at the host's end.
pub const TAP_ADDRESS: &str = "192.168.77.1";

/// Bytes that tell whether they came in the right order.
pub fn content(length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

/// The MD5 sum of bytes, as the guest's `md5sum` says it.
pub fn sum_of(bytes: &[u8]) -> String {
    let file = crate::write_file(bytes);
    let output = Command::new("md5sum").arg(file.path()).output().expect("coreutils are there");
    String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap_or_default().to_owned()
}

/// A port that nobody has.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

/// A web server that serves `body` for so many requests, its port, and what was asked for.
pub fn web_server(address: &str, body: Vec<u8>, requests: usize) -> (u16, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind((address, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let serve = move || {
        let serve_one = |_| {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count > 0) {
                request.extend(byte);
            }
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).expect("it is sent");
            String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned()
        };
        (0..requests).map(serve_one).collect()
    };
    (port, std::thread::spawn(serve))
}

/// A network namespace, which goes with all that is in it.
pub struct Namespace {
    name: String,
    /// The tun driver's device, for those who may not open the host's.
    driver: tempfile::TempDir,
}

impl Namespace {
    /// A namespace, if this test may make one; otherwise it says that it is skipped and why.
    pub fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: it takes root to make a network namespace and a tap");
            return None;
        }
        let name = format!("lodge-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let made = Command::new("ip").args(["netns", "add", &name]).output().expect("iproute2 is there");
        if !made.status.success() {
            eprintln!("skipped: no network namespace: {}", String::from_utf8_lossy(&made.stderr).trim());
            return None;
        }
        let namespace = Self { name, driver: tempfile::tempdir().expect("a folder") };
        // Distributions let everybody open it; a container may not.
        let device = namespace.device();
        succeeds(Command::new("mknod").args(["--mode", "0666"]).arg(&device).args(["c", "10", "200"]));
        succeeds(Command::new("chmod").arg("0755").arg(namespace.driver.path()));
        succeeds(namespace.command("ip").args(["link", "set", "lo", "up"]));
        Some(namespace)
    }

    fn device(&self) -> std::path::PathBuf {
        self.driver.path().join("tun")
    }

    /// A program in it, as root.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Makes a tap for a user, up and with [`TAP_ADDRESS`].
    pub fn tap(&self, name: &str, user: u32) {
        let user = user.to_string();
        succeeds(self.command("ip").args(["tuntap", "add", "dev", name, "mode", "tap", "user", &user]));
        succeeds(self.command("ip").args(["addr", "add", &format!("{TAP_ADDRESS}/24"), "dev", name]));
        succeeds(self.command("ip").args(["link", "set", name, "up"]));
    }

    /// A command in it, as the ordinary user. Files that it names have to be his to read.
    pub fn ordinary(&self, command: &Command) -> Command {
        self.ordinary_seeing(command, &[])
    }

    /// A command in it, as the ordinary user, who sees files instead of others.
    pub fn ordinary_seeing(&self, command: &Command, instead_of: &[(&Path, &Path)]) -> Command {
        const SCRIPT: &str = "while [ \"$1\" != -- ]; do mount --bind \"$1\" \"$2\" && shift 2 || exit; done; exec setpriv \
                              --reuid \"$2\" --regid \"$2\" --clear-groups --no-new-privs -- \"${@:3}\"";
        let mut within = self.command("bash");
        within.args(["-c", SCRIPT, "bash"]).arg(self.device()).arg("/dev/net/tun");
        within.args(instead_of.iter().flat_map(|(file, place)| [file, place])).args(["--", &ORDINARY.to_string()]);
        within.arg(command.get_program()).args(command.get_args()).current_dir("/").env("HOME", "/nonexistent");
        within
    }

    /// Does something on a thread within it. Sockets stay in it wherever they go.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let path = Path::new("/run/netns").join(&self.name);
        let file = std::fs::File::open(path).expect("the namespace is there");
        let enter = || {
            rustix::thread::move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&file),
                Some(LinkNameSpaceType::Network),
            )
            .expect("root may enter");
            act()
        };
        std::thread::scope(|scope| scope.spawn(enter).join().expect("it does not panic"))
    }

    /// dnsmasq on an interface as a DHCP server for .50 to .99 beside [`TAP_ADDRESS`], with more options.
    pub fn dnsmasq(&self, interface: &str, options: &[&str]) -> Dnsmasq {
        let folder = tempfile::tempdir().expect("a folder");
        let leases = format!("--dhcp-leasefile={}", folder.path().join("leases").display());
        let interface = format!("--interface={interface}");
        let range = "--dhcp-range=192.168.77.50,192.168.77.99,1h";
        self.dnsmasq_with(folder, &[&[&interface, range, &leases, "--log-dhcp"], options].concat())
    }

    /// dnsmasq as a name server on an address of the loopback interface, for which all names are one address.
    pub fn name_server(&self, listens: &str, answer: &str) -> Dnsmasq {
        let (listens, answer) = (format!("--listen-address={listens}"), format!("--address=/#/{answer}"));
        self.dnsmasq_with(tempfile::tempdir().expect("a folder"), &["--log-queries", &listens, &answer])
    }

    fn dnsmasq_with(&self, folder: tempfile::TempDir, options: &[&str]) -> Dnsmasq {
        let mut command = self.command("dnsmasq");
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]);
        command.args(["--log-facility=-", "--user=root", "--bind-interfaces", "--pid-file="]).args(options);
        let log = std::fs::File::create(folder.path().join("log")).expect("a file");
        let child = command.stdin(Stdio::null()).stderr(log).spawn().expect("dnsmasq is there");
        Dnsmasq { child, folder }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What is in it goes with it.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// A running dnsmasq, which ends with this.
pub struct Dnsmasq {
    child: Child,
    folder: tempfile::TempDir,
}

impl Dnsmasq {
    /// What it said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        // `ip netns exec` has become dnsmasq: there is nobody between.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command that has to succeed.
#[track_caller]
pub fn succeeds(command: &mut Command) {
    let output = command.output().expect("it can be run");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
