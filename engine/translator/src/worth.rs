//! Which program is worth being mirrored ([`crate::mirror`]).
//!
//! A program is met by the interrupts that come while it runs; one that is met often in a row computes. What it costs to
//! show its pages, and to translate its code anew for that, is held against the time that it has run since: a program that
//! forks, changes its mappings all the time, or is large and will soon end, has no credit left before long, and is not shown
//! again for a while. Each time the while is longer, and the credit larger: what has run for long will go on running.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use lodge_x86::paging::PhysicalMemory;
use rustc_hash::FxHasher;

use crate::memory::Ram;
use crate::mirror::ARENA_NUMBER;

/// Entries of a top-level table that translate programs' addresses.
const LOWER_HALF: u64 = 256;

/// A program, as a hypervisor can tell one from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Where its top-level page table lies.
    pub root: u64,
    /// Where the tables below it lie: the next program's root may be the same page of memory.
    tables: u64,
    /// It has mapped something where lodge is: then it is better not shown, for it may use that often.
    pub in_the_way: bool,
}

impl Program {
    /// The program whose top-level table is at `root`.
    pub fn at(ram: &Ram, root: u64) -> Self {
        let mut hasher = FxHasher::default();
        let mut in_the_way = false;
        for number in 0..LOWER_HALF {
            let entry = ram.read_u64(root + 8 * number).filter(|entry| entry & 1 != 0).unwrap_or(0);
            in_the_way |= entry != 0 && number == u64::from(ARENA_NUMBER);
            // Without what a processor sets.
            (entry & !0xfff).hash(&mut hasher);
        }
        Self { root, tables: hasher.finish(), in_the_way }
    }
}

/// What is known of one vCPU's program.
#[derive(Debug, Default)]
pub struct Met {
    program: Program,
    /// How often in a row, and since when.
    times: u32,
    since: Option<Instant>,
}

impl Met {
    /// Interrupts in a row.
    const OFTEN: u32 = 8;
    /// And for how long.
    const LONG: Duration = Duration::from_millis(100);

    /// An interrupt has come while `program` ran; whether it is met often.
    pub fn meet(&mut self, program: Program, now: Instant) -> bool {
        if self.program != program {
            *self = Self { program, times: 0, since: Some(now) };
        }
        self.times = self.times.saturating_add(1);
        self.times >= Self::OFTEN && self.since.is_some_and(|since| now - since >= Self::LONG)
    }
}

/// What a program that is shown gains and costs.
#[derive(Debug, Default)]
pub struct Worth {
    program: Program,
    /// When it, or nothing, was shown.
    since: Option<Instant>,
    /// When it was last met.
    met: Option<Instant>,
    /// Microseconds.
    credit: i64,
    /// Programs that were too dear.
    dear: VecDeque<Dear>,
}

/// A program that was too dear.
#[derive(Clone, Copy, Debug)]
struct Dear {
    program: Program,
    times: u32,
    /// Until when it is not shown.
    until: Instant,
}

impl Worth {
    /// Microseconds that a program is trusted with at first; what it can save is as much again and more.
    const TRUST: i64 = 30_000;
    const MOST: i64 = 100_000;
    /// What a program gains of the time that it runs: one part in so many.
    const GAIN: i64 = 5;
    /// The longest time between two interrupts that is taken to be the program's.
    const LONGEST: Duration = Duration::from_millis(10);
    /// Programs that take turns are not shown in turn.
    const PAUSE: Duration = Duration::from_millis(200);
    /// How long a program is not met that does not run on another vCPU now: it is not to be shown in turn with the one
    /// that runs on this.
    const AWAY: Duration = Duration::from_millis(50);
    /// How long a program is not met that has gone.
    const GONE: Duration = Duration::from_secs(5);
    /// How long a program is not shown that was too dear once. The next time both this and the trust are larger.
    const BAN: Duration = Duration::from_secs(1);
    const LARGER: u32 = 4;
    const MOST_TIMES: u32 = 3;
    const MOST_DEAR: usize = 16;

    /// Another program is shown, or none.
    pub fn begin(&mut self, program: Option<Program>, now: Instant) {
        self.program = program.unwrap_or_default();
        self.since = Some(now);
        self.met = None;
        self.credit = Self::TRUST * i64::from(self.larger(self.program));
    }

    /// How often a program was too dear.
    fn times(&self, program: Program) -> u32 {
        self.dear.iter().find(|dear| dear.program == program).map_or(0, |dear| dear.times)
    }

    fn larger(&self, program: Program) -> u32 {
        Self::LARGER.pow(self.times(program).min(Self::MOST_TIMES))
    }

    /// Whether the program that is shown has not been met for long: it has ended, or waits. To show it takes memory.
    pub fn is_gone(&self, now: Instant) -> bool {
        self.met.or(self.since).is_some_and(|last| now - last >= Self::GONE)
    }

    /// So many microseconds went into showing.
    pub fn spend(&mut self, microseconds: u64) {
        self.credit = self.credit.saturating_sub_unsigned(microseconds);
    }

    /// A program was met in the address space that is shown; whether it is to be shown no longer.
    pub fn meet(&mut self, program: Program, now: Instant) -> bool {
        if program != self.program {
            // Another has its root table, or it has become another itself.
            return true;
        }
        let ran = self.met.map_or(Duration::ZERO, |met| (now - met).min(Self::LONGEST));
        self.met = Some(now);
        if self.credit < Self::MOST {
            self.credit += ran.as_micros() as i64 / Self::GAIN;
        }
        if self.credit < 0 {
            self.ban(program, now);
        }
        self.credit < 0
    }

    fn ban(&mut self, program: Program, now: Instant) {
        let dear = Dear { program, times: self.times(program) + 1, until: now + Self::BAN * self.larger(program) };
        self.dear.retain(|dear| dear.program != program);
        if self.dear.len() == Self::MOST_DEAR {
            self.dear.pop_front();
        }
        self.dear.push_back(dear);
    }

    /// Whether a program that is met often may be shown now.
    pub fn may_show(&self, program: Program, now: Instant) -> bool {
        !program.in_the_way
            && self.since.is_none_or(|since| now - since >= Self::PAUSE)
            && self.met.is_none_or(|met| now - met >= Self::AWAY)
            && self.dear.iter().all(|dear| dear.program != program || dear.until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Program = Program { root: 0x1000, tables: 1, in_the_way: false };
    const TICK: Duration = Duration::from_millis(4);

    #[test]
    fn a_program_is_shown_that_is_met_in_a_row() {
        let other = Program { tables: 2, ..ONE };
        let mut met = Met::default();
        let mut now = Instant::now();
        for _ in 0..25 {
            assert!(!met.meet(ONE, now));
            now += TICK;
        }
        assert!(met.meet(ONE, now));
        assert!(!met.meet(other, now), "another program with the same root");
        assert!(!met.meet(ONE, now));
        assert!(!met.meet(ONE, now + Met::LONG), "not often");
    }

    #[test]
    fn what_costs_more_than_it_gains_is_banned_for_a_while() {
        let mut worth = Worth::default();
        let mut now = Instant::now();
        assert!(worth.may_show(ONE, now));
        worth.begin(Some(ONE), now);
        for _ in 0..100 {
            now += TICK;
            worth.spend(700);
            assert!(!worth.meet(ONE, now), "700 of 4000 microseconds are less than a fifth");
        }
        let spend_all = |worth: &mut Worth, mut now: Instant| {
            worth.begin(Some(ONE), now);
            for ticks in 1.. {
                now += TICK;
                worth.spend(2000);
                if worth.meet(ONE, now) {
                    return (ticks, now);
                }
            }
            unreachable!("it has no end")
        };
        let (first, mut now) = spend_all(&mut worth, now);
        assert_eq!(first, 25, "2000 of 4000 microseconds, of which it gains 800, from the second on");
        worth.begin(None, now);
        now += Duration::from_millis(900);
        assert!(!worth.may_show(ONE, now));
        assert!(worth.may_show(Program { tables: 2, ..ONE }, now), "another program with the same root");
        now += Duration::from_millis(200);
        assert!(worth.may_show(ONE, now));
        let (second, now) = spend_all(&mut worth, now);
        assert_eq!(second, 94, "it is trusted more the second time");
        assert!(!worth.may_show(ONE, now + Duration::from_secs(2)), "but does not come back so soon");
        assert!(worth.may_show(ONE, now + Duration::from_secs(5)));
    }

    #[test]
    fn programs_are_not_shown_in_turn() {
        let mut worth = Worth::default();
        let now = Instant::now();
        worth.begin(Some(ONE), now);
        let other = Program { root: 0x2000, ..ONE };
        assert!(!worth.may_show(other, now + Duration::from_millis(100)));
        assert!(worth.may_show(other, now + Duration::from_millis(300)));
        assert!(!worth.meet(ONE, now + Duration::from_millis(290)));
        assert!(!worth.may_show(other, now + Duration::from_millis(300)), "the first still runs, on another vCPU");
        let now = now + Duration::from_millis(290);
        assert!(worth.may_show(other, now + Duration::from_millis(50)));
        let in_the_way = Program { in_the_way: true, ..other };
        assert!(!worth.may_show(in_the_way, now + Duration::from_millis(300)));
        assert!(worth.meet(Program { in_the_way: true, ..ONE }, now + TICK));
        assert!(worth.meet(other, now + TICK));
        assert!(!worth.is_gone(now + Duration::from_secs(4)));
        assert!(worth.is_gone(now + Duration::from_secs(6)));
    }
}
