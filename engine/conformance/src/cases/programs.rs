//! Programs of a guest: user code that touches its memory again and again, as an engine sees that maps a program's
//! pages at their own addresses, and what must be noticed then: pages that change or go, spaces that are switched,
//! addresses where the engine itself lies.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use lodge_x86::Gpr::*;

use crate::case::Case;
use crate::cases::crossings::{four, with_entry};
use crate::layout::{CODE, PLAY, RAM, ROOTS, STACK};
use crate::tables::{G, P, PS, RW, US};

/// All cases on this subject.
pub fn cases() -> Vec<Case> {
    let mut all = high();
    all.extend(spaces());
    all.extend(code());
    all.extend(branches());
    all.extend(strings());
    all.extend(shared_code());
    all.push(upper_half());
    all
}

/// High in the lower half: a translator that lives in the guest's address space may well live there.
const HIGH: u64 = 0x780_1234_5000;
/// Further places of that kind: the lower half's last page, and one that hardly anything is near to.
const PLACES: [(&str, u64); 3] = [("high", HIGH), ("top", 0x7fff_ffff_e000), ("middle", 0x2345_6789_a000)];

fn high() -> Vec<Case> {
    let mut all = Vec::new();
    for (name, place) in PLACES {
        let case = |what: &str, body: fn(&mut CodeAssembler) -> Result<(), IcedError>| {
            Case::long(&format!("programs/{what}_{name}"), move |a| {
                a.mov(r8, place)?;
                four(a, body)
            })
            .user()
            .map(place, RAM, P | RW | US)
            .gives(Rbx, 0)
            .gives(R8, place)
        };
        all.push(
            case(
                "loads_and_stores",
                |a| emit!(a; add(dword_ptr(r8), 3); mov(rax, qword_ptr(r8)); mov(qword_ptr(r8 + rbx * 8 + 0x10), rax)),
            )
            .poke(RAM, &[1])
            .gives(Rax, 13)
            .leaves(RAM + 0x18, &[13, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 7]),
        );
        all.push(
            // The base alone is far from where the access goes, and an index alone too.
            case("far_indexes", |a| {
                emit!(a; mov(rcx, r8); shr(rcx, 1u32); lea(rdx, ptr(rcx)); inc(byte_ptr(rcx + rdx + 4)); mov(esi, 8);
                    lea(rdx, ptr(r8 - 8)); add(rdi, qword_ptr(rdx + rsi)); lea(rdx, ptr(r8 - 0x4000_0000));
                    add(rdi, qword_ptr(rdx + 0x4000_0000)); inc(rdi))
            })
            .with(Rdi, 0)
            .any(Rcx)
            .any(Rdx)
            .gives(Rsi, 8)
            .gives(Rdi, 2 * 0xa_0000_0000 + 4)
            .leaves(RAM + 4, &[4]),
        );
        all.push(
            case("a_stack", |a| emit!(a; mov(r9, rsp); lea(rsp, ptr(r8 + 0x800)); push(rbx); push(7); pop(rax); pop(rcx); mov(rsp, r9)))
                .any(R9)
                .gives(Rax, 7)
                .gives(Rcx, 1)
                .leaves(RAM + 0x7f0, &[7, 0, 0, 0, 0, 0, 0, 0, 1]),
        );
        all.push(
            case("strings", |a| emit!(a; mov(rsi, r8); lea(rdi, ptr(r8 + 0x100)); mov(ecx, 0x21); rep().movsb()))
                .poke(RAM, &[0x5a; 0x21])
                .gives(Rsi, place + 0x21)
                .gives(Rdi, place + 0x121)
                .gives(Rcx, 0)
                .leaves(RAM + 0x100, &[0x5a; 0x21])
                .leaves(RAM + 0x121, &[0]),
        );
        all.push(
            case("scans", |a| emit!(a; mov(rdi, r8); mov(ecx, 0x21); mov(eax, 0); repne().scasb()))
                .poke(RAM, &[0x5a; 0x1f])
                .gives(Rax, 0)
                .gives(Rdi, place + 0x20)
                .gives(Rcx, 1),
        );
        all.push(
            case(
                "exchanges",
                |a| emit!(a; mov(eax, ebx); lock().xadd(dword_ptr(r8), eax); lock().inc(qword_ptr(r8 + 8))),
            )
            .gives(Rax, 4 + 3 + 2)
            .leaves(RAM, &[10, 0, 0, 0, 0, 0, 0, 0, 4]),
        );
        all.push(
            // The page after it is not there.
            Case::long(&format!("programs/past_the_end_{name}"), move |a| {
                a.mov(r8, place)?;
                four(a, |a| emit!(a; inc(dword_ptr(r8 + 0xff8))))?;
                emit!(a; mov(qword_ptr(r8 + 0xffd), r8))
            })
            .user()
            .map(place, RAM, P | RW | US)
            .gives(Rbx, 0)
            .gives(R8, place)
            .page_fault(6, place + 0x1000, 5)
            .leaves(RAM + 0xff8, &[4, 0, 0, 0, 0, 0, 0, 0]),
        );
    }
    all.extend(beside());
    // What would lie past the last page is not canonical, and another exception's.
    all.retain(|case| case.name != "programs/past_the_end_top");
    all
}

/// What goes with accesses far from where a program usually is.
fn beside() -> Vec<Case> {
    let mut all = Vec::new();
    all.push(
        // inc dword ptr [rip+0xffa]; lea rbx, [rip+0xff3]; mov rax, [rbx]; ret
        Case::long("programs/code_that_lies_high", |a| {
            emit!(a; mov(r8, HIGH); mov(ecx, 4))?;
            let mut again = a.create_label();
            emit!(a; set_label(&mut again); call(r8); dec(ecx); jne(again))
        })
        .user()
        .map(HIGH, RAM, P | RW | US)
        .map(HIGH + 0x1000, RAM + 0x1000, P | RW | US)
        .poke(RAM, &[0xff, 5, 0xfa, 0xf, 0, 0, 0x48, 0x8d, 0x1d, 0xf3, 0xf, 0, 0, 0x48, 0x8b, 3, 0xc3])
        .poke(RAM + 0x1000, &[1])
        .gives(Rax, 5)
        .gives(Rbx, HIGH + 0x1000)
        .gives(Rcx, 0)
        .gives(R8, HIGH)
        .leaves(RAM + 0x1000, &[5]),
    );
    all.push(
        // Between CMP and the instruction that reads its flags are an access by a high byte, and one to where a
        // translator may lie; a block ends there.
        Case::long("programs/flags_beside_accesses", |a| {
            emit!(a; mov(r8, HIGH); mov(esi, PLAY as u32))?;
            four(a, |a| {
                let mut next = a.create_label();
                emit!(a; cmp(rdi, rbx); mov(byte_ptr(rsi), ah); mov(rdx, qword_ptr(r8)); jmp(next); set_label(&mut next);
                    adc(r9d, 0))
            })
        })
        .user()
        .map(HIGH, RAM, P | RW | US)
        .map(PLAY, RAM + 0x1000, P | RW | US)
        .with(Rdi, 2)
        .with(R9, 0)
        .gives(R9, 2)
        .gives(Rbx, 0)
        .gives(Rdx, 0)
        .gives(Rsi, PLAY)
        .gives(R8, HIGH),
    );
    for user in [false, true] {
        let case = Case::long(&format!("programs/pop_far_from_the_stack_{user}"), |a| {
            // pop qword ptr [rsp+0x7ffffff8], which is reckoned from where RSP is afterwards.
            emit!(a; push(5); db(&[0x8f, 0x84, 0x24, 0xf8, 0xff, 0xff, 0x7f]))
        })
        .map((STACK + 0x7fff_fff8) & !0xfff, RAM, P | RW | US)
        .leaves(RAM + ((STACK + 0x7fff_fff8) & 0xfff), &[5]);
        all.push(if user { case.user() } else { case });
    }
    all.push(
        // paddd xmm1, [rbx+8] where RBX is aligned.
        Case::long(
            "programs/operands_that_have_to_be_aligned",
            |a| emit!(a; mov(ebx, PLAY as u32); mov(eax, ptr(rbx)); db(&[0x66, 0x0f, 0xfe, 0x4b, 8])),
        )
        .user()
        .map(PLAY, RAM, P | RW | US)
        .gives(Rax, 0)
        .gives(Rbx, PLAY)
        .raises(13, Some(0), 2),
    );
    all
}

/// Two functions of a page that several spaces have: one is looked up in each, the other may be found by what is known
/// of the page. Then the page moves.
fn shared_code() -> Vec<Case> {
    const OTHER: u64 = ROOTS[0] ^ ROOTS[1];
    let functions = |case: Case| {
        // add edi, 1 or 16; ret. add esi, 1 or 16; ret.
        [(0, 1), (0x4000, 16)]
            .into_iter()
            .fold(case, |case, (page, by)| {
                case.poke(RAM + page, &[0x83, 0xc7, by, 0xc3]).poke(RAM + page + 0x100, &[0x83, 0xc6, by, 0xc3])
            })
            .map(PLAY, RAM, P | RW | US)
            .map_in(1, 1, PLAY, RAM, P | RW | US)
            .poke(RAM + 0x8000, &entry_of_play().to_le_bytes())
            .with(Rdi, 0)
            .with(Rsi, 0)
            .any(Rdx)
    };
    let system = |name: &str, switch: fn(&mut CodeAssembler) -> Result<(), IcedError>| {
        functions(Case::long(name, move |a| {
            emit!(a; mov(ebx, PLAY as u32); lea(rbp, ptr(rbx + 0x100)); mov(r8d, RAM as u32))?;
            switch(a)?;
            emit!(a; call(rbx); call(rbp))?;
            switch(a)?;
            emit!(a; call(rbx); call(rbp); call(rbp); mov(rdx, qword_ptr(r8 + 0x8000)); xor(qword_ptr(rdx), 0x4000);
                invlpg(byte_ptr(rbx)); call(rbp); call(rbx))
        }))
        .gives(Rdi, 2 + 16)
        .gives(Rsi, 3 + 16)
        .gives(Rbx, PLAY)
        .gives(Rbp, PLAY + 0x100)
        .gives(R8, RAM)
    };
    let user = Case::long("programs/functions_that_spaces_share_user", |a| {
        emit!(a; mov(r8d, PLAY as u32); lea(rbp, ptr(r8 + 0x100)))?;
        four(a, |a| emit!(a; call(r8); call(rbp); syscall()))
    });
    let user = with_entry(user, |a| {
        let (mut moves, mut last) = (a.create_label(), a.create_label());
        emit!(a; cmp(ebx, 2); je(moves); jb(last); mov(rdx, cr3); xor(rdx, OTHER as i32); mov(cr3, rdx); sysretq();
            set_label(&mut moves); mov(rdx, qword_ptr(RAM + 0x8000)); xor(qword_ptr(rdx), 0x4000);
            invlpg(byte_ptr(PLAY)); set_label(&mut last); sysretq())
    });
    vec![
        system(
            "programs/functions_that_spaces_share",
            |a| emit!(a; mov(rdx, cr3); xor(rdx, OTHER as i32); mov(cr3, rdx)),
        ),
        system(
            "programs/functions_that_spaces_with_identifiers_share",
            |a| emit!(a; mov(rdx, cr3); xor(rdx, (OTHER | 3) as i32); bts(rdx, 63u32); mov(cr3, rdx)),
        )
        .tweak(|state| {
            state.cr4 |= lodge_x86::bits::cr4::PCIDE;
            state.cr3 |= 1;
        }),
        functions(user).gives(Rdi, 3 + 16).gives(Rsi, 3 + 16).gives(Rbx, 0).gives(Rbp, PLAY + 0x100).gives(R8, PLAY),
    ]
}

/// Loads and stores in PLAY with calls to the system between them.
fn between(name: &str, entry: impl Fn(&mut CodeAssembler) -> Result<(), IcedError> + Send + Sync + 'static) -> Case {
    let user = |a: &mut CodeAssembler| {
        a.mov(r8d, PLAY as u32)?;
        four(
            a,
            |a| emit!(a; mov(eax, dword_ptr(r8)); lea(rdi, ptr(rdi + rdi * 8)); add(rdi, rax); inc(dword_ptr(r8)); syscall()),
        )
    };
    with_entry(Case::long(name, user), entry)
        .with(Rdi, 0)
        .any(Rax)
        .any(Rdx)
        .gives(Rbx, 0)
        .gives(R8, PLAY)
        .map(PLAY, RAM, P | RW | US)
        .poke(RAM, &[1])
        .poke(RAM + 0x1000, &[5])
}

fn spaces() -> Vec<Case> {
    let other = ROOTS[0] ^ ROOTS[1];
    vec![
        between(
            "programs/spaces_switched_by_calls",
            move |a| emit!(a; mov(rdx, cr3); xor(rdx, other as i32); mov(cr3, rdx); sysretq()),
        )
        .map_in(1, 1, PLAY, RAM + 0x1000, P | RW | US)
        .gives(Rdi, ((9 + 5) * 9 + 2) * 9 + 6)
        .leaves(RAM, &[3])
        .leaves(RAM + 0x1000, &[7]),
        between("programs/spaces_with_identifiers", move |a| {
            // Each has its own PCID, and what is cached of it stays.
            emit!(a; mov(rdx, cr3); xor(rdx, (other | 3) as i32); bts(rdx, 63u32); mov(cr3, rdx); sysretq())
        })
        .tweak(|state| {
            state.cr4 |= lodge_x86::bits::cr4::PCIDE;
            state.cr3 |= 1;
        })
        .map_in(1, 1, PLAY, RAM + 0x1000, P | RW | US)
        .gives(Rdi, ((9 + 5) * 9 + 2) * 9 + 6)
        .leaves(RAM, &[3])
        .leaves(RAM + 0x1000, &[7]),
        between("programs/a_page_moved_by_calls", |a| {
            // PLAY's entry is moved to and fro by what the case put at RAM + 0x2000.
            emit!(a; mov(rdx, qword_ptr(RAM + 0x2000)); xor(qword_ptr(rdx), 0x1000); invlpg(byte_ptr(PLAY)); sysretq())
        })
        .poke(RAM + 0x2000, &entry_of_play().to_le_bytes())
        .gives(Rdi, ((9 + 5) * 9 + 2) * 9 + 6)
        .leaves(RAM, &[3])
        .leaves(RAM + 0x1000, &[7]),
        between("programs/a_page_moved_and_the_space_loaded_anew", |a| {
            emit!(a; mov(rdx, qword_ptr(RAM + 0x2000)); xor(qword_ptr(rdx), 0x1000); mov(rdx, cr3); mov(cr3, rdx);
                sysretq())
        })
        .poke(RAM + 0x2000, &entry_of_play().to_le_bytes())
        .gives(Rdi, ((9 + 5) * 9 + 2) * 9 + 6),
        // The system writes to the page through a mapping of its own.
        between("programs/a_page_written_by_the_system", |a| emit!(a; add(dword_ptr(RAM), 0x10); sysretq()))
            .gives(Rdi, ((9 + 0x12) * 9 + 0x23) * 9 + 0x34),
        // And makes it unwritable after the third round: INC faults in the fourth.
        between("programs/a_page_made_unwritable", |a| {
            let mut open = a.create_label();
            emit!(a; cmp(ebx, 2); jne(open); mov(rdx, qword_ptr(RAM + 0x2000)); and(qword_ptr(rdx), !2);
                invlpg(byte_ptr(PLAY)); set_label(&mut open); sysretq())
        })
        .poke(RAM + 0x2000, &entry_of_play().to_le_bytes())
        .gives(Rbx, 1)
        .gives(Rdi, ((9 + 2) * 9 + 3) * 9 + 4)
        .page_fault(7, PLAY, 5),
        between("programs/a_page_taken_from_the_program", |a| {
            let mut open = a.create_label();
            emit!(a; cmp(ebx, 2); jne(open); mov(rdx, qword_ptr(RAM + 0x2000)); and(qword_ptr(rdx), !4);
                invlpg(byte_ptr(PLAY)); set_label(&mut open); sysretq())
        })
        .poke(RAM + 0x2000, &entry_of_play().to_le_bytes())
        .gives(Rbx, 1)
        .gives(Rdi, (9 + 2) * 9 + 3)
        .page_fault(5, PLAY, 2),
        // A page that was only read is clean, and the first store says so in its entry.
        Case::long("programs/a_page_read_and_then_written", |a| {
            a.mov(r8d, PLAY as u32)?;
            four(a, |a| emit!(a; add(edi, dword_ptr(r8)); add(edi, dword_ptr(r8 + 0x1000))))?;
            emit!(a; mov(byte_ptr(r8 + 9), 1))
        })
        .user()
        .with(Rdi, 0)
        .gives(Rdi, 12)
        .gives(Rbx, 0)
        .gives(R8, PLAY)
        .map(PLAY, RAM, P | RW | US)
        .map(PLAY + 0x1000, RAM + 0x1000, P | RW | US)
        .poke(RAM, &[1])
        .poke(RAM + 0x1000, &[2])
        .entry_after(PLAY, 1, 0x60, 0x60)
        .entry_after(PLAY + 0x1000, 1, 0x60, 0x20),
    ]
}

/// Where the entry that maps PLAY lies: its space's tables are made in the order of the addresses, and the board's
/// own 4 MiB and its page of MMIO come first.
fn entry_of_play() -> u64 {
    // Root, two tables below it, then tables of the first and second 2 MiB, those of MMIO, and PLAY's.
    ROOTS[0] + 7 * 0x1000
}

fn code() -> Vec<Case> {
    // An instruction over the end of a page, and what it accesses is at a page's end too, or far away.
    let over = |name: &str, instruction: &[u8]| {
        let mut bytes = instruction.to_vec();
        // pop rax; ret
        bytes.extend([0x58, 0xc3]);
        Case::long(name, |a| {
            emit!(a; mov(r8d, (PLAY + 0xffe) as u32))?;
            let mut again = a.create_label();
            emit!(a; mov(ecx, 4); set_label(&mut again); call(r8); add(rdi, rax); dec(ecx); jne(again))
        })
        .map(PLAY, RAM, P | RW | US)
        .map(PLAY + 0x1000, RAM + 0x1000, P | RW | US)
        .poke(RAM + 0xffe, &bytes)
        .with(Rdi, 0)
        .gives(R8, PLAY + 0xffe)
        .gives(Rcx, 0)
        .gives(Rax, 3)
        .gives(Rdi, 12)
    };
    let push_on_stack = [0xff, 0x74, 0x24, 8];
    let tail = [0xb8, 1, 0, 0, 0, 0xe9, 0xf6, 0x1f, 0, 0];
    vec![
        over("programs/code_and_stack_over_two_pages", &push_on_stack).poke(STACK, &[3]),
        over("programs/code_and_stack_over_two_pages_of_a_program", &push_on_stack).user().poke(STACK, &[3]),
        over("programs/code_over_two_pages_and_data_high", &[0xff, 0x73, 0x10])
            .user()
            .map(HIGH, RAM + 0x4000, P | RW | US)
            .poke(RAM + 0x4010, &[3])
            .with(Rbx, HIGH),
        Case::long("programs/code_that_rewrites_itself", |a| {
            // The immediate of ADD counts up.
            let (mut again, mut here) = (a.create_label(), a.create_label());
            emit!(a; xor(eax, eax); mov(ecx, 100); lea(rdi, ptr(here)); set_label(&mut again); inc(byte_ptr(rdi + 2));
                set_label(&mut here); db(&[0x83, 0xc0, 0x00]); dec(ecx); jne(again))
        })
        .user()
        .any(Rdi)
        .gives(Rcx, 0)
        .gives(Rax, 5050),
        Case::long("programs/code_written_and_called", |a| {
            // As a compiler at run time does: writes code into a page that it called before.
            a.mov(r8d, PLAY as u32)?;
            four(a, |a| {
                emit!(a; mov(byte_ptr(r8), 0xb8u32); mov(dword_ptr(r8 + 1), ebx); mov(byte_ptr(r8 + 5), 0xc3u32);
                call(r8); add(edi, eax))
            })
        })
        .user()
        .map(PLAY, RAM, P | RW | US)
        .with(Rdi, 0)
        .gives(Rdi, 10)
        .gives(Rax, 1)
        .gives(Rbx, 0)
        .gives(R8, PLAY),
        Case::long("programs/code_written_by_a_string_instruction", |a| {
            a.mov(r8d, PLAY as u32)?;
            four(a, |a| {
                emit!(a; mov(dword_ptr(r8 + 0x1001), ebx); mov(rdi, r8); lea(rsi, ptr(r8 + 0x1000)); mov(ecx, 6);
                rep().movsb(); call(r8); add(edx, eax))
            })
        })
        .user()
        .map(PLAY, RAM, P | RW | US)
        .map(PLAY + 0x1000, RAM + 0x1000, P | RW | US)
        .poke(RAM + 0x1000, &[0xb8, 0, 0, 0, 0, 0xc3])
        .with(Rdx, 0)
        .gives(Rdx, 10)
        .gives(Rax, 1)
        .gives(Rbx, 0)
        .gives(Rcx, 0)
        .gives(Rsi, PLAY + 0x1006)
        .gives(Rdi, PLAY + 6)
        .gives(R8, PLAY),
        with_entry(
            // A jump to another page, which the system moves between the second and the third round.
            Case::long("programs/code_of_another_page_that_moves", |a| {
                a.mov(r8d, PLAY as u32)?;
                four(a, |a| emit!(a; call(r8); lea(rdi, ptr(rdi + rdi * 8)); add(rdi, rax); syscall()))
            }),
            |a| {
                let mut stay = a.create_label();
                emit!(a; cmp(ebx, 3); jne(stay); mov(rdx, qword_ptr(RAM + 0x8000)); xor(qword_ptr(rdx), 0x1000);
                    invlpg(byte_ptr(PLAY + 0x2000)); set_label(&mut stay); sysretq())
            },
        )
        // mov eax, 1; jmp to the second page from here: inc eax; ret or dec eax; ret.
        .map(PLAY, RAM, P | RW | US)
        .map(PLAY + 0x2000, RAM + 0x2000, P | RW | US)
        .poke(RAM, &tail)
        .poke(RAM + 0x2000, &[0xff, 0xc0, 0xc3])
        .poke(RAM + 0x3000, &[0xff, 0xc8, 0xc3])
        .poke(RAM + 0x8000, &(entry_of_play() + 16).to_le_bytes())
        .with(Rdi, 0)
        .any(Rdx)
        .gives(Rax, 0)
        .gives(Rbx, 0)
        .gives(R8, PLAY)
        .gives(Rdi, (2 * 9 + 2) * 81),
    ]
}

/// Indirect branches, to code that moves, and to nowhere.
fn branches() -> Vec<Case> {
    // Four rounds; between the second and the third the system moves a page or two.
    let moved = |name: &str, flush: fn(&mut CodeAssembler) -> Result<(), IcedError>| {
        with_entry(
            Case::long(name, |a| {
                a.mov(r8d, (PLAY + 0xffe) as u32)?;
                four(a, |a| emit!(a; mov(eax, 4); call(r8); lea(rdi, ptr(rdi + rdi * 8)); add(rdi, rax); syscall()))
            }),
            move |a| {
                let mut stay = a.create_label();
                emit!(a; cmp(ebx, 3); jne(stay); mov(rdx, qword_ptr(RAM + 0x8000)); xor(qword_ptr(rdx), 0x4000))?;
                flush(a)?;
                emit!(a; set_label(&mut stay); sysretq())
            },
        )
        .with(Rdi, 0)
        .any(Rdx)
        .gives(Rbx, 0)
        .gives(R8, PLAY + 0xffe)
    };
    // add eax, 1 or add eax, 2, which begins with the first page's last two bytes; ret.
    let pages = |case: Case, second: u64| {
        case.poke(RAM + 0xffe, &[0x83, 0xc0])
            .poke(RAM + 0x1000, &[1, 0xc3])
            .poke(RAM + 0x4ffe, &[0x83, 0xc0])
            .poke(RAM + 0x5000, &[2, 0xc3])
            .poke(RAM + 0x8000, &(entry_of_play() + second).to_le_bytes())
    };
    let small = |case: Case| pages(case, 8).map(PLAY, RAM, P | RW | US).map(PLAY + 0x1000, RAM + 0x1000, P | RW | US);
    let result = |before: u64, after: u64| ((before * 9 + before) * 9 + after) * 9 + after;
    let mut all = vec![
        small(moved("programs/a_second_page_that_moves", |a| emit!(a; invlpg(byte_ptr(PLAY + 0x1000)))))
            .gives(Rax, 6)
            .gives(Rdi, result(5, 6)),
        small(moved("programs/a_second_page_that_moves_with_the_space", |a| emit!(a; mov(rdx, cr3); mov(cr3, rdx))))
            .gives(Rax, 6)
            .gives(Rdi, result(5, 6)),
        // The flush names another address in the same large page.
        moved("programs/a_large_page_that_moves", |a| {
            emit!(a; mov(rdx, qword_ptr(RAM + 0x8000)); xor(qword_ptr(rdx), 0x20_0000 ^ 0x4000);
                invlpg(byte_ptr(PLAY + 0x12_3456)))
        })
        .map_in(0, 2, PLAY, 0x40_0000, P | RW | US | PS)
        .poke(0x40_0ffe, &[0x83, 0xc0, 1, 0xc3])
        .poke(0x60_0ffe, &[0x83, 0xc0, 2, 0xc3])
        .poke(RAM + 0x8000, &(ROOTS[0] + 2 * 0x1000 + 16).to_le_bytes())
        .gives(Rax, 6)
        .gives(Rdi, result(5, 6)),
    ];
    all.push(
        // The space is loaded anew between the first and the second, and the page, which is global, moved between the
        // second and the third.
        with_entry(
            Case::long("programs/a_global_page_that_moves", |a| {
                a.mov(r8d, PLAY as u32)?;
                four(a, |a| emit!(a; mov(eax, 4); call(r8); lea(rdi, ptr(rdi + rdi * 8)); add(rdi, rax); syscall()))
            }),
            |a| {
                let (mut second, mut stay) = (a.create_label(), a.create_label());
                emit!(a; cmp(ebx, 4); jne(second); mov(rdx, cr3); mov(cr3, rdx); set_label(&mut second); cmp(ebx, 3);
                    jne(stay); mov(rdx, qword_ptr(RAM + 0x8000)); xor(qword_ptr(rdx), 0x4000); invlpg(byte_ptr(PLAY));
                    set_label(&mut stay); sysretq())
            },
        )
        .tweak(|state| state.cr4 |= lodge_x86::bits::cr4::PGE)
        .map(PLAY, RAM, P | RW | US | G)
        .poke(RAM, &[0x83, 0xc0, 1, 0xc3])
        .poke(RAM + 0x4000, &[0x83, 0xc0, 2, 0xc3])
        .poke(RAM + 0x8000, &entry_of_play().to_le_bytes())
        .with(Rdi, 0)
        .any(Rdx)
        .gives(Rax, 6)
        .gives(Rbx, 0)
        .gives(R8, PLAY)
        .gives(Rdi, result(5, 6)),
    );
    // Many targets, which share parts of their addresses. CF lives through the first call.
    let mut many = Case::long("programs/many_targets", |a| {
        let mut again = a.create_label();
        emit!(a; mov(ecx, 0x400); mov(r8d, PLAY as u32); set_label(&mut again); mov(eax, ecx); and(eax, 0xf);
                shl(eax, 8u32); lea(rdx, ptr(r8 + rax)); stc(); call(rdx); adc(edi, 0); mov(eax, ecx); and(eax, 0xf0);
                shl(eax, 12u32); lea(rdx, ptr(r8 + rax)); call(rdx); dec(ecx); jne(again))
    })
    .user()
    .with(Rdi, 0)
    .any(Rax)
    .any(Rdx)
    .gives(Rcx, 0)
    .gives(R8, PLAY)
    .gives(Rdi, 0xc00);
    for number in 0..16 {
        // lea edi, [rdi+1]; ret
        let add = [0x8d, 0x7f, 1, 0xc3];
        many = many.map(PLAY + (number << 16), RAM + (number << 12), P | RW | US);
        many = many.poke(RAM + (number << 12), &add).poke(RAM + (number << 8), &add);
    }
    all.push(many);
    // An engine that keeps a table of targets must not find one for these in what is empty.
    for number in 0..24u64 {
        let target = (number * 1031 % 0x2000).wrapping_neg();
        let case = Case::long(&format!("programs/to_nowhere_{number}"), move |a| {
            a.mov(rax, target)?;
            emit!(a; jmp(rax))
        });
        // What lies at address zero is the system's.
        let error = if target == 0 { 0x15 } else { 0x14 };
        all.push(case.user().gives(Rax, target).page_fault_at(error, target, target));
    }
    all
}

fn strings() -> Vec<Case> {
    let copy = |name: &str, body: fn(&mut CodeAssembler) -> Result<(), IcedError>| {
        Case::long(name, move |a| {
            // Once within the page, so that it is known; then over its end.
            emit!(a; mov(esi, RAM as u32); mov(edi, PLAY as u32); mov(ecx, 8))?;
            body(a)?;
            emit!(a; mov(esi, RAM as u32); mov(edi, (PLAY + 0xff0) as u32); mov(ecx, 0x20))?;
            body(a)
        })
        .user()
        .map(PLAY, RAM + 0x1000, P | RW | US)
        .poke(RAM, &[0x11; 0x100])
    };
    vec![
        copy("programs/a_copy_ends_where_memory_does", |a| emit!(a; rep().movsb()))
            .gives(Rsi, RAM + 0x10)
            .gives(Rdi, PLAY + 0x1000)
            .gives(Rcx, 0x10)
            .page_fault(6, PLAY + 0x1000, 7)
            .leaves(RAM + 0x1fef, &[0, 0x11, 0x11])
            .leaves(RAM + 0x1fff, &[0x11]),
        copy("programs/a_copy_of_words_ends_where_memory_does", |a| emit!(a; rep().movsq()))
            .gives(Rsi, RAM + 0x10)
            .gives(Rdi, PLAY + 0x1000)
            .gives(Rcx, 0x1e)
            .page_fault(6, PLAY + 0x1000, 7),
        copy("programs/a_fill_ends_where_memory_does", |a| emit!(a; mov(eax, 0x77); rep().stosd()))
            .gives(Rax, 0x77)
            .gives(Rsi, RAM)
            .gives(Rdi, PLAY + 0x1000)
            .gives(Rcx, 0x1c)
            .page_fault(6, PLAY + 0x1000, 9)
            .leaves(RAM + 0x1ffc, &[0x77, 0, 0, 0]),
        Case::long("programs/a_copy_into_unwritable_code", |a| {
            // Into the page that it lies in, behind itself.
            four(
                a,
                |a| emit!(a; mov(esi, RAM as u32); mov(edi, (CODE + 0x800) as u32); mov(ecx, 0x40); rep().movsb()),
            )?;
            emit!(a; mov(edi, (CODE + 0x800) as u32); call(rdi))
        })
        .user()
        .poke(RAM, &[0xb8, 9, 0, 0, 0, 0xc3])
        .gives(Rax, 9)
        .gives(Rbx, 0)
        .gives(Rcx, 0)
        .gives(Rsi, RAM + 0x40)
        .gives(Rdi, CODE + 0x800),
    ]
}

/// A page of the upper half that is the program's, and not global.
fn upper_half() -> Case {
    const UPPER: u64 = 0xffff_9000_0012_3000;
    let user = Case::long("programs/a_page_of_the_upper_half_in_another_space", |a| {
        emit!(a; mov(r8, UPPER); call(r8); mov(ecx, (PLAY + 0x5100) as u32); call(rcx); lea(rcx, ptr(r8 + 0x100));
            call(rcx); mov(edx, ROOTS[1] as u32); syscall(); lea(rcx, ptr(r8 + 0x100)); call(rcx))
    });
    // add edi, 1 or 16; ret. add esi, 1 or 16; ret.
    [(0, 1), (0x4000, 16)]
        .into_iter()
        .fold(with_entry(user, |a| emit!(a; mov(cr3, rdx); sysretq())), |case, (page, by)| {
            case.poke(RAM + page, &[0x83, 0xc7, by, 0xc3]).poke(RAM + page + 0x100, &[0x83, 0xc6, by, 0xc3])
        })
        .map(UPPER, RAM, P | RW | US)
        .map(PLAY + 0x5000, RAM, P | RW | US)
        .map_in(1, 1, UPPER, RAM + 0x4000, P | RW | US)
        .tweak(|state| state.cr4 |= lodge_x86::bits::cr4::PGE)
        .with(Rdi, 0)
        .with(Rsi, 0)
        .any(Rdx)
        .gives(R8, UPPER)
        .gives(Rdi, 1)
        .gives(Rsi, 1 + 1 + 16)
}
