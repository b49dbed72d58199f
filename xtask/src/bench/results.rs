//! What came out: seconds per work and contender, and what follows from them.
//!
//! Medians of warm runs are compared. A mean over several works is geometric, and counts each row of the suite once, be
//! it of one work or of three.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::contender::Contender;
use super::suite::{Class, Work};

/// One work on one contender.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Seconds of the first run: nothing is translated, nothing read.
    pub cold: Option<f64>,
    /// Seconds of the others.
    pub warm: Vec<f64>,
    /// What went wrong. Nothing else of it counts then.
    pub failure: Option<String>,
}

/// One work.
#[derive(Clone, Debug)]
pub struct Row {
    /// The work.
    pub work: Work,
    /// Who did it how.
    pub by: BTreeMap<Contender, Measured>,
    /// lodge's counters for one warm run, if they were asked for.
    pub counters: Option<Value>,
}

/// How a class did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// The class.
    pub class: Class,
    /// Times native that its works may take.
    pub goal: f64,
    /// Their mean.
    pub mean: f64,
    /// The worst, and which it is.
    pub worst: (f64, &'static str),
}

impl Verdict {
    /// All of its works are within the goal.
    pub fn is_met(&self) -> bool {
        self.worst.0 <= self.goal
    }
}

impl Row {
    /// A work that nobody has done yet.
    pub fn new(work: Work) -> Self {
        Self { work, by: BTreeMap::new(), counters: None }
    }

    /// The median of a contender's warm runs.
    pub fn seconds(&self, contender: Contender) -> Option<f64> {
        let measured = self.by.get(&contender).filter(|measured| measured.failure.is_none())?;
        (!measured.warm.is_empty()).then(|| median(&measured.warm))
    }

    /// How much longer one took than another.
    pub fn ratio(&self, of: Contender, to: Contender) -> Option<f64> {
        Some(self.seconds(of)? / self.seconds(to)?)
    }

    fn json(&self) -> Value {
        let contenders: serde_json::Map<_, _> = self
            .by
            .iter()
            .map(|(contender, measured)| {
                let warm = &measured.warm;
                let value = json!({
                    "cold": measured.cold,
                    "warm": warm,
                    "median": (!warm.is_empty()).then(|| median(warm)),
                    "min": warm.iter().copied().reduce(f64::min),
                    "max": warm.iter().copied().reduce(f64::max),
                    "failure": measured.failure,
                });
                (contender.name().to_owned(), value)
            })
            .collect();
        json!({
            "row": self.work.row,
            "key": self.work.key,
            "work": self.work.what,
            "class": self.work.class.name(),
            "cpus": self.work.cpus,
            "contenders": contenders,
            "lodge_to_native": self.ratio(Contender::Lodge, Contender::Native),
            "qemu_to_lodge": self.ratio(Contender::Qemu, Contender::Lodge),
            "lodge_counters": self.counters,
        })
    }
}

/// The median; not a number for nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[length / 2],
        length => (sorted[length / 2 - 1] + sorted[length / 2]) / 2.0,
    }
}

fn geometric_mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.into_iter().fold((0.0, 0u32), |(sum, count), value| (sum + value.ln(), count + 1));
    (count > 0).then(|| (sum / f64::from(count)).exp())
}

/// The mean of a ratio over the works that `wanted` names, each row counting once.
pub fn mean(rows: &[Row], wanted: impl Fn(&Work) -> bool, of: Contender, to: Contender) -> Option<f64> {
    let mut by_row: BTreeMap<u8, Vec<f64>> = BTreeMap::new();
    for row in rows.iter().filter(|row| wanted(&row.work)) {
        if let Some(ratio) = row.ratio(of, to) {
            by_row.entry(row.work.row).or_default().push(ratio);
        }
    }
    geometric_mean(by_row.into_values().filter_map(geometric_mean))
}

/// The mean over the rows that try the processor.
pub fn processor_mean(rows: &[Row], of: Contender, to: Contender) -> Option<f64> {
    mean(rows, |work| work.class.is_of_processor(), of, to)
}

/// How the classes that have a goal and were measured did.
pub fn verdicts(rows: &[Row]) -> Vec<Verdict> {
    let verdict = |&class: &Class| {
        let goal = class.goal()?;
        let mean = mean(rows, |work| work.class == class, Contender::Lodge, Contender::Native)?;
        let of_class = rows.iter().filter(|row| row.work.class == class);
        let ratios = of_class.filter_map(|row| Some((row.ratio(Contender::Lodge, Contender::Native)?, row.work.what)));
        let worst = ratios.max_by(|a, b| a.0.total_cmp(&b.0))?;
        Some(Verdict { class, goal, mean, worst })
    };
    Class::ALL.iter().filter_map(verdict).collect()
}

/// All of it, with what is to be known of the host.
pub fn json(rows: &[Row], about: &Value) -> Value {
    let classes: Vec<_> = verdicts(rows)
        .iter()
        .map(|verdict| {
            json!({
                "class": verdict.class.name(),
                "goal": verdict.goal,
                "mean": verdict.mean,
                "worst": verdict.worst.0,
                "worst_work": verdict.worst.1,
                "met": verdict.is_met(),
            })
        })
        .collect();
    json!({
        "about": about,
        "works": rows.iter().map(Row::json).collect::<Vec<_>>(),
        "classes": classes,
        "processor_mean": {
            "lodge_to_native": processor_mean(rows, Contender::Lodge, Contender::Native),
            "qemu_to_lodge": processor_mean(rows, Contender::Qemu, Contender::Lodge),
        },
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A row with one warm run of each contender.
    pub fn row(number: u8, class: Class, seconds: &[(Contender, f64)]) -> Row {
        let mut row = Row::new(Work::script(number, "key", class, "what", "", ""));
        for &(contender, seconds) in seconds {
            row.by.insert(contender, Measured { cold: Some(9.0), warm: vec![seconds], failure: None });
        }
        row
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_row_of_several_works_counts_once_in_a_mean() {
        use Contender::{Lodge, Native};
        let rows = [
            row(1, Class::Integer, &[(Native, 1.0), (Lodge, 2.0)]),
            row(1, Class::Integer, &[(Native, 1.0), (Lodge, 8.0)]),
            row(2, Class::Simd, &[(Native, 1.0), (Lodge, 1.0)]),
            row(12, Class::Syscall, &[(Native, 1.0), (Lodge, 100.0)]),
        ];
        let mean = processor_mean(&rows, Lodge, Native).unwrap();
        assert!((mean - 2.0).abs() < 1e-9, "{mean}");
        assert_eq!(processor_mean(&rows, Contender::Qemu, Lodge), None);
    }

    #[test]
    fn a_class_is_judged_by_its_worst_work() {
        use Contender::{Lodge, Native};
        let mut rows = vec![
            row(1, Class::Integer, &[(Native, 1.0), (Lodge, 2.0)]),
            row(3, Class::Integer, &[(Native, 1.0), (Lodge, 3.5)]),
        ];
        let verdict = verdicts(&rows)[0];
        assert_eq!((verdict.goal, verdict.worst.0, verdict.is_met()), (3.0, 3.5, false));
        rows.pop();
        assert!(verdicts(&rows)[0].is_met());
    }

    #[test]
    fn failures_have_no_ratio_and_say_why() {
        use Contender::{Lodge, Native};
        let mut row = row(1, Class::Integer, &[(Native, 1.0), (Lodge, 2.0)]);
        row.by.get_mut(&Lodge).unwrap().failure = Some("it crashed".into());
        assert_eq!(row.ratio(Lodge, Native), None);
        let value = json(&[row], &Value::Null);
        assert_eq!(value["works"][0]["contenders"]["lodge"]["failure"], "it crashed");
        assert_eq!(value["works"][0]["contenders"]["native"]["cold"], 9.0);
        assert_eq!(value["classes"], json!([]));
    }
}
