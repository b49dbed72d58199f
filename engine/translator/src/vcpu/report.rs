//! What a vCPU tells of itself: a crash, and its counters.

use std::sync::atomic::Ordering;

use lodge_engine_api::CrashReport;

use super::TranslatorVcpu;

impl TranslatorVcpu {
    pub(super) fn crash_report(&mut self) -> CrashReport {
        use std::fmt::Write;
        let mut cause = String::new();
        for (lip, exception) in &self.context.exceptions {
            let _ = write!(cause, "{}{exception} in code at {lip:#x}", if cause.is_empty() { "" } else { ", then " });
        }
        let instructions = crate::disassemble::around(self.cpu());
        CrashReport { cause, state: Box::new(self.cpu().export()), instructions }
    }

    pub(super) fn publish_counts(&mut self) {
        let counts = std::mem::take(&mut self.context.counts);
        let regions = std::mem::take(&mut self.context.regions.counts);
        let values = [
            counts.entries, counts.memory, counts.walks, counts.bounced, counts.system, counts.strings,
            counts.exceptions, counts.interrupts, counts.lookups, counts.code_writes, counts.unchained, counts.polls,
            counts.helper_exits, counts.host_faults, counts.raised, regions.switches, regions.flushes,
            regions.page_flushes, counts.shown,
        ];
        for (sum, value) in self.shared.counters.values.iter().zip(values) {
            sum.fetch_add(value, Ordering::Relaxed);
        }
        let mut helped = self.shared.counters.helped.lock();
        for (mnemonic, count) in self.context.helped.take() {
            *helped.entry(mnemonic).or_default() += count;
        }
    }
}
