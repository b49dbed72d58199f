//! Profiles of made-up hosts, and the consistency of the tables.

use super::*;

const SHAPE: Shape = Shape { vcpus: 6, tsc_hz: 2_445_406_000, apic_hz: 1_000_000_000, physical_address_bits: 40 };

/// A host that has everything.
fn full(leaf: u32, subleaf: u32) -> [u32; 4] {
    match (leaf, subleaf) {
        (0, _) => [0x20, 0x6874_7541, 0x444d_4163, 0x6974_6e65],
        (0x8000_0000, _) => [0x8000_0028, 0, 0, 0],
        (0xd, 0) => [7, 832, 832, 0],
        _ => [u32::MAX; 4],
    }
}

/// A host that has everything but some bits.
fn lacking(holes: &'static [(u32, Register, u32)]) -> impl Fn(u32, u32) -> [u32; 4] {
    move |leaf, subleaf| {
        let mut registers = full(leaf, subleaf);
        for &(_, register, bit) in holes.iter().filter(|hole| hole.0 == leaf) {
            registers[register as usize] &= !(1 << bit);
        }
        registers
    }
}

fn processor(apic_id: u32) -> Processor {
    Processor { apic_id, apic_enabled: true, osxsave: true, xcr0: 7 }
}

#[test]
fn names_and_bits_are_unique() {
    for (index, feature) in FEATURES.iter().enumerate() {
        for other in &FEATURES[index + 1..] {
            assert_ne!(feature.name, other.name);
            let place = |f: &Feature| (f.leaf, f.register, f.bit);
            assert_ne!(place(feature), place(other), "{} and {}", feature.name, other.name);
        }
    }
}

#[test]
fn a_full_host_gives_all_names_and_nothing_unnamed() {
    let profile = Profile::for_host(full).unwrap();
    assert_eq!(profile.names().count(), FEATURES.len());
    assert_eq!(profile.level(), Level::V3);
    let table = profile.table(&Shape { vcpus: 1, ..SHAPE });
    let named = |leaf, register| {
        FEATURES.iter().filter(|f| f.leaf == leaf && f.register == register).fold(0, |bits, f| bits | 1 << f.bit)
    };
    for (leaf, register) in [
        (1, Register::Ecx),
        (1, Register::Edx),
        (6, Register::Eax),
        (7, Register::Ebx),
        (7, Register::Ecx),
        (7, Register::Edx),
        (0x8000_0001, Register::Ecx),
        (0x8000_0007, Register::Edx),
        (0x8000_0008, Register::Ebx),
        (0x8000_0021, Register::Eax),
        (0x8000_0021, Register::Ecx),
    ] {
        assert_eq!(table.lookup(leaf, 0)[register as usize], named(leaf, register), "{leaf:#x} {register:?}");
    }
    // AVX-512, MONITOR, VMX, SVM, XSAVES and SPEC_CTRL are among what must not leak.
    assert_eq!(table.lookup(7, 0)[1] & 1 << 16, 0);
    assert_eq!(table.lookup(1, 0)[2] & (1 << 3 | 1 << 5), 0);
    assert_eq!(table.lookup(0x8000_0001, 0)[2] & 1 << 2, 0);
    assert_eq!(table.lookup(0xd, 1), [0; 4]);
    assert_eq!(table.lookup(7, 0)[3] & 1 << 26, 0);
}

#[test]
fn required_features_are_refused_by_name() {
    let missing = Profile::for_host(lacking(&[(7, Register::Ebx, 8)])).unwrap_err();
    assert_eq!(missing.features, ["bmi2"]);
    let missing = Profile::for_host(lacking(&[(7, Register::Ebx, 8), (7, Register::Ebx, 0)])).unwrap_err();
    assert!(missing.to_string().starts_with("the host's processor lacks fsgsbase and bmi2;"), "{missing}");
    // A host whose basic leaves end before 7 has neither, even if the instruction repeats another leaf there.
    let old = |leaf, subleaf| if leaf == 0 { [6, 0, 0, 0] } else { full(leaf, subleaf) };
    assert_eq!(Profile::for_host(old).unwrap_err().features, ["fsgsbase", "bmi2"]);
}

#[test]
fn what_the_host_lacks_is_dropped() {
    let profile = Profile::for_host(lacking(&[(7, Register::Ebx, 29), (7, Register::Ebx, 20)])).unwrap();
    assert!(!profile.has("sha_ni"));
    assert!(profile.has("smap"), "the engine provides it");
    assert_eq!(profile.table(&SHAPE).lookup(7, 0)[1] & 1 << 29, 0);
    assert_eq!(profile.level(), Level::V3);
    // A system that has not enabled AVX takes all that uses YMM registers with it, whatever the processor has.
    let no_avx = |leaf, subleaf| if leaf == 0xd { [7, 576, 832, 0] } else { full(leaf, subleaf) };
    let profile = Profile::for_host(no_avx).unwrap();
    for name in ["avx", "avx2", "fma", "f16c"] {
        assert!(!profile.has(name), "{name}");
    }
    assert_eq!(profile.level(), Level::V2);
    let table = profile.table(&SHAPE);
    assert_eq!(table.lookup(0xd, 0), [3, 576, 576, 0]);
    assert_eq!(table.lookup(0xd, 2), [0; 4]);
    let no_osxsave = Profile::for_host(lacking(&[(1, Register::Ecx, 27)])).unwrap();
    assert!(!no_osxsave.has("xsave") && !no_osxsave.has("avx"));
    assert_eq!(no_osxsave.table(&SHAPE).answer(0xd, 0, processor(0)), [0; 4]);
    assert_eq!(no_osxsave.table(&SHAPE).answer(1, 0, processor(0))[2] & 1 << 27, 0);
}

#[test]
fn engines_can_leave_features_out() {
    let profile = Profile::for_host(full).unwrap().without(&["pcid", "bmi2"]);
    assert!(!profile.has("pcid"));
    assert_eq!(profile.table(&SHAPE).lookup(1, 0)[2] & 1 << 17, 0);
    assert_eq!(profile.level(), Level::V2);
}

#[test]
fn vendor_signature_and_brand() {
    let table = Profile::for_host(full).unwrap().table(&SHAPE);
    let bytes = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>();
    let [_, b, c, d] = table.lookup(0, 0);
    assert_eq!(bytes(&[b, d, c]), b"AuthenticAMD");
    assert_eq!(table.lookup(0x8000_0000, 0)[1..], table.lookup(0, 0)[1..]);
    let [_, b, c, d] = table.lookup(0x4000_0000, 0);
    assert_eq!(bytes(&[b, c, d]), b"KVMKVMKVM\0\0\0");
    let brand: Vec<_> = (0x8000_0002..=0x8000_0004).flat_map(|leaf| bytes(&table.lookup(leaf, 0))).collect();
    assert_eq!(std::str::from_utf8(&brand).unwrap().trim_end_matches('\0'), "lodge virtual CPU (x86-64-v3)");
    let eax = table.lookup(1, 0)[0];
    assert_eq!((eax >> 8 & 0xf) + (eax >> 20 & 0xff), 0x19);
}

#[test]
fn leaves_that_are_not_there_are_zero() {
    let table = Profile::for_host(full).unwrap().table(&SHAPE);
    for (leaf, subleaf) in [
        (2, 0),
        (4, 0),
        (5, 0),
        (7, 1),
        (0x17, 0),
        (0x1234, 0),
        (0x3fff_ffff, 0),
        (0x4000_0002, 0),
        (0x8000_0022, 0),
        (0x8000_001d, 4),
        (u32::MAX, u32::MAX),
    ] {
        assert_eq!(table.lookup(leaf, subleaf), [0; 4], "{leaf:#x} {subleaf:#x}");
    }
    assert_eq!(table.lookup(1, 77), table.lookup(1, 0), "a leaf without sub-leaves ignores ECX");
}

#[test]
fn topology_is_consistent() {
    for (vcpus, id_bits) in [(1, 0), (2, 1), (3, 2), (6, 3), (8, 3), (255, 8)] {
        let table = Profile::for_host(full).unwrap().table(&Shape { vcpus, ..SHAPE });
        assert_eq!(table.lookup(1, 0)[1] >> 16, vcpus);
        assert_eq!(table.lookup(1, 0)[3] >> 28 & 1, u32::from(vcpus > 1));
        assert_eq!(table.lookup(0xb, 1)[..2], [id_bits, vcpus]);
        assert_eq!(table.lookup(0x8000_0008, 0)[2], id_bits << 12 | (vcpus - 1));
        assert_eq!(table.lookup(0x8000_001d, 3)[0] >> 14 & 0xfff, vcpus - 1);
        assert_eq!(table.answer(1, 0, processor(vcpus - 1))[1] >> 24, vcpus - 1);
        assert_eq!(table.answer(0x8000_001e, 0, processor(5))[..2], [5, 5]);
    }
    let table = Profile::for_host(full).unwrap().table(&SHAPE);
    assert_eq!(table.answer(0xb, 0, processor(4)), [0, 1, 0x100, 4]);
    assert_eq!(table.answer(0xb, 1, processor(4)), [3, 6, 0x201, 4]);
    assert_eq!(table.answer(0xb, 9, processor(4)), [0, 0, 9, 4]);
}

#[test]
fn caches_multiply_out() {
    let table = Profile::for_host(full).unwrap().table(&SHAPE);
    for (subleaf, size) in [(0, 32 << 10), (1, 32 << 10), (2, 512 << 10), (3, 32 << 20)] {
        let [_, ebx, ecx, _] = table.lookup(0x8000_001d, subleaf);
        assert_eq!(((ebx >> 22) + 1) * ((ebx & 0xfff) + 1) * (ecx + 1), size, "{subleaf}");
    }
    assert_eq!(table.lookup(0x8000_0005, 0)[2] >> 24, 32);
    assert_eq!(table.lookup(0x8000_0006, 0)[2] >> 16, 512);
    assert_eq!((table.lookup(0x8000_0006, 0)[3] >> 18) * 512, 32 << 10);
}

#[test]
fn state_dependent_fields() {
    let table = Profile::for_host(full).unwrap().table(&SHAPE);
    let off = Processor { apic_id: 0, apic_enabled: false, osxsave: false, xcr0: 3 };
    assert_eq!(table.answer(1, 0, off)[2] & 1 << 27, 0);
    assert_ne!(table.answer(1, 0, processor(0))[2] & 1 << 27, 0);
    assert_eq!(table.answer(1, 0, off)[3] & 1 << 9, 0);
    assert_eq!(table.answer(0x8000_0001, 0, off)[3] & 1 << 9, 0);
    assert_ne!(table.answer(0x8000_0001, 0, processor(0))[3] & 1 << 9, 0);
    assert_eq!(table.answer(0xd, 0, off), [7, 576, 832, 0]);
    assert_eq!(table.answer(0xd, 0, processor(0)), [7, 832, 832, 0]);
}

#[test]
fn frequencies() {
    let table = Profile::for_host(full).unwrap().table(&SHAPE);
    let [denominator, numerator, crystal, _] = table.lookup(0x15, 0);
    let hz = u64::from(crystal) * u64::from(numerator) / u64::from(denominator);
    assert_eq!(hz, SHAPE.tsc_hz);
    assert_eq!(table.lookup(0x16, 0)[0], 2445);
    assert_eq!(table.lookup(0x4000_0010, 0)[..2], [2_445_406, 1_000_000]);
    assert_eq!(table.lookup(0x4000_0001, 0)[0], 1 << 1 | 1 << 3 | 1 << 24);
}
