use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lodge_backend::{Ejection, Mechanism, RawDisk, Tray};
use lodge_engine_api::Mirroring;
use lodge_net::{Accepts, Cable, CableConfig, Far};
use lodge_vm::engines::{self, Choice};
use lodge_vm::{
    AttachedCd, AttachedNetwork, Backends, Boot, CdBus, Config, Firmware, NetworkCard, OnReboot, Outcome, Vm,
};
use tempfile::TempDir;

use super::*;

/// A machine whose firmware halts, with a control socket and an empty CD drive.
struct Rig {
    folder: TempDir,
    tray: Arc<Tray>,
    vm: Vm,
    server: Server,
    desk: Arc<lodge_input::Desk>,
}

fn load(tray: &Arc<Tray>, path: &Path, _: bool) -> Result<(), String> {
    let disk = RawDisk::open(path, true).map_err(|error| error.to_string())?;
    tray.insert(Arc::new(disk)).map_err(|error| error.to_string())
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("firmware");
        let mut bytes = vec![0; 0x1_0000];
        // hlt; jmp to it
        bytes[0xfff0..0xfff3].copy_from_slice(&[0xf4, 0xeb, 0xfd]);
        std::fs::write(&image, bytes).unwrap();
        let config = Config {
            machine: Default::default(),
            memory: 16 << 20,
            vcpus: 1,
            display: true,
            vga_bios: Vec::new(),
            graphics: lodge_vm::GraphicsCard::Standard,
            video_memory: lodge_vm::VIDEO_MEMORY,
            tablet: false,
            boot: Boot::Firmware(Firmware {
                image,
                order: lodge_vm::BootOrder::default(),
                serial_console: false,
                kernel: None,
            }),
            sound: None,
            debug_exit: false,
            on_reboot: OnReboot::Restart,
            timeout: None,
            code_cache: 32 << 20,
            mirroring: Mirroring::Never,
            kept_code: None,
        };
        let engine = engines::choose(&engines::all(), &Choice::Named("translator".into())).unwrap().engine;
        let tray = Tray::new(None);
        let attached = |number| {
            let config = CableConfig { name: format!("net{number}"), unplugged: number == 1, ..CableConfig::default() };
            let cable = Cable::new(config, Far::new(Accepts::ALL, 0)).unwrap();
            AttachedNetwork { card: NetworkCard::E1000, cable, rom: Vec::new() }
        };
        let backends = Backends::default()
            .with_cds(vec![AttachedCd { bus: CdBus::Ide, tray: tray.clone() }])
            .with_networks(vec![attached(0), attached(1)]);
        let (monitor, desk) = (backends.monitor().clone(), backends.desk().clone());
        let at_desk = desk.clone();
        let vm = Vm::start(config, engine, backends).unwrap();
        let path = folder.path().join("control");
        let drive = Drive { name: "cd0".into(), tray: tray.clone(), load: Box::new(load) };
        let machine = Machine { handle: vm.handle(), monitor, desk, drives: vec![drive] };
        let server = Server::start(Server::bind(&path).unwrap(), &path, machine).unwrap();
        Self { folder, tray, vm, server, desk: at_desk }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("control")
    }

    fn ask(&self, request: &Request) -> Result<Response, String> {
        ask(&self.path(), request).map_err(|error| error.to_string())
    }

    fn status(&self) -> StatusReport {
        match self.ask(&Request::Status) {
            Ok(Response::Status(report)) => report,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_machine_is_commanded() {
    let rig = Rig::new();
    let status = rig.status();
    assert_eq!((status.phase.as_str(), status.resets, status.engine.as_str()), ("running", 0, "translator"));
    for (request, phase) in [(Request::Pause, "paused"), (Request::Pause, "paused"), (Request::Resume, "running")] {
        assert_eq!(rig.ask(&request), Ok(Response::Done));
        assert_eq!(rig.status().phase, phase);
    }
    rig.ask(&Request::Reset).unwrap();
    assert_eq!(rig.status().resets, 1);
    let refused = rig.ask(&Request::Powerdown).unwrap_err();
    assert!(refused.contains("does not listen to its power button"), "{refused}");
    rig.ask(&Request::Quit).unwrap();
    assert!(matches!(rig.vm.wait().unwrap().outcome, Outcome::Quit));
    let path = rig.folder.path().join("control");
    assert_eq!(ask(&path, &Request::Status).unwrap_err().to_string(), "the machine has ended");
    drop(rig.server);
    assert!(!path.exists());
    let error = ask(&path, &Request::Status).unwrap_err().to_string();
    assert!(error.starts_with("no machine listens at") && error.contains("--control"), "{error}");
}

#[test]
fn cables_are_pulled_and_plugged_in() {
    let rig = Rig::new();
    let links = || rig.status().cards.iter().map(|card| (card.name.clone(), card.up)).collect::<Vec<_>>();
    let expected = |up| [("net0".to_owned(), up), ("net1".to_owned(), false)];
    assert_eq!(links(), expected(true));
    for up in [false, true, false] {
        assert_eq!(rig.ask(&Request::Link { card: "net0".into(), up }), Ok(Response::Done));
        assert_eq!(links(), expected(up));
    }
    rig.ask(&Request::Reset).unwrap();
    assert_eq!(links(), expected(false), "whoever resets a machine leaves its cables alone");
    let refused = rig.ask(&Request::Link { card: "net7".into(), up: true }).unwrap_err();
    assert_eq!(refused, "there is no network card 'net7'; there are: net0, net1");
}

#[test]
fn the_screen_is_seen_and_keys_are_pressed() {
    let rig = Rig::new();
    let Ok(Response::Screenshot(text)) = rig.ask(&Request::Screenshot) else { panic!() };
    let png = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text).unwrap();
    assert_eq!(png[1..4], *b"PNG");
    assert!(matches!(rig.ask(&Request::Text), Ok(Response::Text(_))));
    let keys = |names: &[&str]| rig.ask(&Request::Key { keys: names.iter().map(|name| (*name).into()).collect() });
    assert_eq!(keys(&["ctrl-alt-delete", "f1"]), Ok(Response::Done));
    assert!(keys(&["hyperspace"]).unwrap_err().contains("hyperspace"));
    assert_eq!(rig.ask(&Request::Type { text: "Hello!\n".into() }), Ok(Response::Done));
    assert!(rig.ask(&Request::Type { text: "\u{4e16}".into() }).unwrap_err().contains('\u{4e16}'));
    rig.vm.handle().quit();
    rig.vm.wait().unwrap();
}

#[test]
fn media_come_and_go() {
    let rig = Rig::new();
    let iso = rig.folder.path().join("disc.iso");
    std::fs::write(&iso, [0; 4096]).unwrap();
    let change = |device: &str, file: Option<&Path>| {
        rig.ask(&Request::Media { device: device.into(), file: file.map(Into::into), readonly: false })
    };
    assert!(!rig.status().drives[0].loaded);
    assert_eq!(change("cd0", Some(&iso)), Ok(Response::Done));
    assert!(rig.status().drives[0].loaded && rig.tray.medium().is_some());
    let missing = change("cd0", Some(Path::new("/no/such.iso"))).unwrap_err();
    assert!(missing.contains("/no/such.iso") && rig.tray.medium().is_some(), "{missing}");
    rig.tray.lock(true);
    assert!(change("cd0", None).unwrap_err().contains("locked the tray"));
    assert_eq!(change("cd0", None), Ok(Response::Done), "the second time by force");
    assert!(rig.tray.medium().is_none());
    assert_eq!(change("cd7", None).unwrap_err(), "there is no drive 'cd7'; there are: cd0");
    rig.vm.handle().quit();
    rig.vm.wait().unwrap();
}

#[test]
fn what_is_no_request_is_refused_and_the_next_one_served() {
    let rig = Rig::new();
    let mut peer = UnixStream::connect(rig.path()).unwrap();
    let mut answers = BufReader::new(peer.try_clone().unwrap()).lines();
    for (line, expected) in [
        ("{\"command\":\"dance\"}", "this is no request"),
        ("\u{0}\u{1}", "this is no request"),
        ("{\"command\":\"media\"}", "missing field `device`"),
        ("{\"command\":\"status\",\"of\":\"later versions\"}", "\"phase\":\"running\""),
    ] {
        writeln!(peer, "{line}").unwrap();
        let answer = answers.next().unwrap().unwrap();
        assert!(answer.contains(expected), "{line}: {answer}");
    }
    // A line without an end is not kept in memory for ever.
    let endless = vec![b'a'; 1 << 21];
    let _ = peer.write_all(&endless);
    let answer = answers.next().unwrap().unwrap();
    assert!(answer.contains("at most"), "{answer}");
    assert_eq!(rig.status().phase, "running");
    rig.vm.handle().quit();
    rig.vm.wait().unwrap();
}

#[test]
fn connections_are_bounded() {
    let rig = Rig::new();
    let held: Vec<_> = (0..16).map(|_| UnixStream::connect(rig.path()).unwrap()).collect();
    let refused = rig.ask(&Request::Status).unwrap_err();
    assert!(refused.contains("others are connected") || refused.contains("went away"), "{refused}");
    drop(held);
    let served = (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        rig.ask(&Request::Status).is_ok()
    });
    assert!(served, "connections that ended make room");
    rig.vm.handle().quit();
    rig.vm.wait().unwrap();
}

#[test]
fn the_socket_is_its_users_alone_and_nobody_elses_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = Server::bind(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Server::bind(&path).unwrap_err().kind(), std::io::ErrorKind::AddrInUse, "somebody listens");
    drop(listener);
    Server::bind(&path).unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(Server::bind(&file).is_err());
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

#[test]
fn a_socket_that_another_machine_has_taken_over_stays() {
    let rig = Rig::new();
    let path = rig.path();
    std::fs::remove_file(&path).unwrap();
    let other = Server::bind(&path).unwrap();
    drop(rig.server);
    assert!(path.exists(), "and dropping did not wait for the other to answer");
    drop(other);
    rig.vm.handle().quit();
    rig.vm.wait().unwrap();
}

#[test]
fn peers_that_stay_hold_nothing_once_the_server_is_gone() {
    let rig = Rig::new();
    let idle: Vec<_> = (0..3).map(|_| UnixStream::connect(rig.path()).unwrap()).collect();
    let mut busy = UnixStream::connect(rig.path()).unwrap();
    writeln!(busy, "{}", serde_json::to_string(&Request::Type { text: "A".repeat(2000) }).unwrap()).unwrap();
    // One that asks for much and reads nothing.
    let mut deaf = UnixStream::connect(rig.path()).unwrap();
    let request = serde_json::to_string(&Request::Screenshot).unwrap() + "\n";
    deaf.write_all(request.repeat(1000).as_bytes()).unwrap();
    // What was asked for before the end is answered.
    let mut quits = UnixStream::connect(rig.path()).unwrap();
    writeln!(quits, "{}", serde_json::to_string(&Request::Quit).unwrap()).unwrap();
    let answer = BufReader::new(&quits).lines().next().unwrap().unwrap();
    assert_eq!(answer, "\"done\"");
    let tray = Arc::downgrade(&rig.tray);
    let Rig { tray: last, vm, server, folder, .. } = rig;
    // Somebody else has the path by now: nothing there may be needed for the end.
    std::fs::remove_file(folder.path().join("control")).unwrap();
    drop(last);
    vm.wait().unwrap();
    assert!(tray.upgrade().is_some(), "the server has it");
    drop(server);
    assert!(tray.upgrade().is_none(), "nobody has it any more");
    for mut peer in idle {
        assert_eq!(std::io::Read::read(&mut peer, &mut [0]).unwrap(), 0, "they are told");
    }
}

/// A drive of the host's that opens when the test says so.
#[derive(Default)]
struct Host(std::sync::Mutex<Option<Arc<Ejection>>>);

impl Mechanism for Host {
    fn lock(&self, _: bool) {}
    fn eject(&self) -> Arc<Ejection> {
        self.0.lock().unwrap().get_or_insert_default().clone()
    }
    fn close(&self, _: bool) {}
    fn is_moving(&self) -> bool {
        self.0.lock().unwrap().is_some()
    }
    fn is_locking(&self) -> bool {
        false
    }
}

#[test]
fn an_answer_waits_for_the_hosts_drive() {
    let rig = Rig::new();
    let host = Arc::new(Host::default());
    rig.tray.stand_for(host.clone());
    let eject = || rig.ask(&Request::Media { device: "cd0".into(), file: None, readonly: false });
    std::thread::scope(|scope| {
        for (result, expected) in [
            (
                Err("the drive /dev/sr0 can't be opened: it is stuck".into()),
                Err("the drive /dev/sr0 can't be opened: it is stuck".into()),
            ),
            (Ok(()), Ok(Response::Done)),
        ] {
            let asks = scope.spawn(eject);
            let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while host.0.lock().unwrap().is_none() {
                assert!(std::time::Instant::now() < until && !asks.is_finished(), "it was not asked");
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
            assert!(!asks.is_finished(), "it was not done");
            host.0.lock().unwrap().take().unwrap().tell(result);
            assert_eq!(asks.join().unwrap(), expected);
        }
    });
    // Nobody waits for it: the server ends all the same.
    let mut peer = UnixStream::connect(rig.path()).unwrap();
    writeln!(peer, "{{\"command\":\"media\",\"device\":\"cd0\"}}").unwrap();
    while host.0.lock().unwrap().is_none() {
        std::thread::yield_now();
    }
    let begin = std::time::Instant::now();
    drop(rig.server);
    assert!(begin.elapsed() < std::time::Duration::from_secs(10), "it waited for the drive");
    rig.vm.handle().quit();
    rig.vm.wait().unwrap();
}

/// A keyboard that counts.
#[derive(Default)]
struct Counter(std::sync::Mutex<(u32, u32)>);

impl lodge_input::Keyboard for Counter {
    fn key(&self, _key: lodge_input::Key, down: bool) {
        let mut counts = self.0.lock().unwrap();
        if down { counts.0 += 1 } else { counts.1 += 1 }
    }
}

#[test]
fn typing_ends_when_nobody_waits_for_it_and_has_a_limit() {
    let rig = Rig::new();
    let most = rig.ask(&Request::Type { text: "a".repeat(4097) }).unwrap_err();
    assert!(most.contains("at most 4096 keys"), "{most}");
    let keys = vec!["shift-a".to_owned(); 2049];
    assert!(rig.ask(&Request::Key { keys }).unwrap_err().contains("at most 4096 keys"));
    let counter = Arc::new(Counter::default());
    let keyboard: Arc<dyn lodge_input::Keyboard> = counter.clone();
    rig.desk.connect_keyboard(Arc::downgrade(&keyboard));
    let request = serde_json::to_string(&Request::Type { text: "A".repeat(2000) }).unwrap();
    let mut peer = UnixStream::connect(rig.path()).unwrap();
    writeln!(peer, "{request}").unwrap();
    // One that has nothing more to say still waits.
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    let counts = || *counter.0.lock().unwrap();
    let wait_for = |condition: &dyn Fn() -> bool| {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !condition() {
            assert!(std::time::Instant::now() < until, "{:?}", counts());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    wait_for(&|| counts().0 > 10);
    drop(peer);
    std::thread::sleep(std::time::Duration::from_millis(200));
    let stopped = counts();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(counts(), stopped, "it goes on");
    assert!(stopped.0 < 2000 && stopped.0 == stopped.1, "no key stays down: {stopped:?}");
    // Nor does it hold up the end of the machine.
    let mut peer = UnixStream::connect(rig.path()).unwrap();
    writeln!(peer, "{request}").unwrap();
    wait_for(&|| counts().0 > stopped.0);
    drop(rig.server);
    wait_for(&|| counts().0 == counts().1);
    rig.vm.handle().quit();
    rig.vm.wait().unwrap();
}
