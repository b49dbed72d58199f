//! Days and dates (proleptic Gregorian calendar).

/// A moment as the clock's registers show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Date {
    pub(super) year: i64,
    pub(super) month: u8,
    pub(super) day: u8,
    /// Sunday is 1.
    pub(super) weekday: u8,
    pub(super) hour: u8,
    pub(super) minute: u8,
    pub(super) second: u8,
}

/// The date at `seconds` since 1970.
pub(super) fn from_seconds(seconds: i64) -> Date {
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Count from 1 March of year 0, so that leap days end their years.
    let since = days + 719_468;
    let era = since.div_euclid(146_097);
    let day_of_era = since.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    Date {
        year: era * 400 + year_of_era + i64::from(month <= 2),
        month: month as u8,
        day: (day_of_year - (153 * shifted + 2) / 5 + 1) as u8,
        weekday: ((days + 4).rem_euclid(7) + 1) as u8,
        hour: (of_day / 3600) as u8,
        minute: (of_day / 60 % 60) as u8,
        second: (of_day % 60) as u8,
    }
}

/// Seconds since 1970. Fields out of range carry over, as many a guest relies on.
pub(super) fn to_seconds(date: &Date) -> i64 {
    let months = i64::from(date.month) - 1;
    let year = date.year + months.div_euclid(12);
    let month = months.rem_euclid(12) + 1;
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted + 2) / 5 + i64::from(date.day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    days * 86_400 + i64::from(date.hour) * 3600 + i64::from(date.minute) * 60 + i64::from(date.second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_round_trip() {
        for (seconds, y, m, d, weekday) in [
            (0, 1970, 1, 1, 5),
            (951_782_400, 2000, 2, 29, 3),
            (1_735_689_599, 2024, 12, 31, 3),
            (4_107_542_400, 2100, 3, 1, 2),
        ] {
            let date = from_seconds(seconds);
            assert_eq!((date.year, date.month, date.day, date.weekday), (y, m, d, weekday), "{seconds}");
            assert_eq!(to_seconds(&date), seconds);
        }
        for seconds in (-4_000_000_000i64..8_000_000_000).step_by(7_654_321) {
            assert_eq!(to_seconds(&from_seconds(seconds)), seconds);
        }
    }
}
