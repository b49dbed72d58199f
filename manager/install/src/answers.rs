//! [`Answers`]: what installers would ask.
//!
//! Every value is checked against a grammar that holds none of the characters that mean something in any of the formats
//! that are written, so that no value becomes more than a value: no line ends, quotes, backslashes or expansions. What
//! writes a format still quotes as that format does.

use regex_lite::Regex;

/// What installers would ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// The machine's name, one label of DNS.
    pub hostname: String,
    /// The first user, who administers the machine; there is no way to log in as root.
    pub user: User,
    /// Language, country and encoding: `en_US.UTF-8`.
    pub locale: String,
    /// Keyboard layout, as XKB calls it: `us`.
    pub keyboard: String,
    /// Time zone, as IANA calls it: `Europe/Berlin`, `UTC`.
    pub timezone: String,
    /// The disk that is overwritten, as the guest calls it: `/dev/vda`. Windows counts disks, and gets the first.
    pub disk: String,
    /// Where packages come from; without one, what the installer takes by itself.
    pub mirror: Option<Mirror>,
    /// Packages besides the system's own and an SSH server.
    pub packages: Vec<String>,
    /// What the installer's kernel is told besides, as it is; may be empty.
    pub kernel_parameters: String,
    /// What the installer does at its end.
    pub finish: Finish,
    /// What only Windows asks.
    pub windows: WindowsAnswers,
}

/// The first user.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The name that is typed.
    pub name: String,
    /// The name that is shown; may be empty.
    pub full_name: String,
    /// The password's hash as crypt(5) writes it, for the Linuxes.
    pub password_hash: Option<String>,
    /// Public keys for SSH, in the form of `authorized_keys`, a line each.
    pub ssh_keys: Vec<String>,
}

/// Shows no hash.
impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, full_name, password_hash, ssh_keys } = self;
        let hash = password_hash.as_ref().map(|_| "..");
        f.debug_struct("User")
            .field("name", name)
            .field("full_name", full_name)
            .field("password_hash", &hash)
            .field("ssh_keys", ssh_keys)
            .finish()
    }
}

/// A mirror of packages, by HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Host, with a port if need be: `mirror.example.org`.
    pub host: String,
    /// The folder on it: `/debian`.
    pub folder: String,
}

/// What an installer does at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Finish {
    /// Switches the machine off, by which whoever runs it knows.
    #[default]
    PowerOff,
    /// Starts the new system.
    Reboot,
}

/// What only Windows asks.
#[derive(Clone, PartialEq, Eq)]
pub struct WindowsAnswers {
    /// The user's password; Windows takes no hash. Whoever reads the answers reads it.
    pub password: Option<String>,
    /// The number of the Windows on the disc that is installed, from 1.
    pub image: u32,
    /// The product key; evaluation discs need none.
    pub product_key: Option<String>,
}

impl Default for WindowsAnswers {
    fn default() -> Self {
        Self { password: None, image: 1, product_key: None }
    }
}

/// Shows no password.
impl std::fmt::Debug for WindowsAnswers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hidden = |secret: &Option<String>| secret.as_ref().map(|_| "..");
        f.debug_struct("WindowsAnswers")
            .field("password", &hidden(&self.password))
            .field("image", &self.image)
            .field("product_key", &hidden(&self.product_key))
            .finish()
    }
}

/// An answer that can't be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// A value that the answer can't have. Secrets are not shown.
    #[error("{what} '{value}' is not {wanted}")]
    Value {
        /// Which answer.
        what: &'static str,
        /// What it is, without what a terminal would take for orders.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// A secret that is not of the right form.
    #[error("{what} is not {wanted}")]
    Secret {
        /// Which answer.
        what: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// More than anybody needs.
    #[error("{count} {what} are too many; give up to {MOST_ITEMS}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
    },
    /// Nobody could log in.
    #[error("nobody could log in: give the user a password or a public key for SSH")]
    NoLogin,
    /// Windows takes it in another form, or not at all.
    #[error("Windows' installer takes no {what}; {instead}")]
    NotOnWindows {
        /// What.
        what: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// No name of Windows' is known for it.
    #[error("no name that Windows has is known for the {what} '{value}'; use {instead}")]
    NoWindowsName {
        /// Which answer.
        what: &'static str,
        /// What it is.
        value: String,
        /// One that is known.
        instead: &'static str,
    },
}

/// The grammars: which answer, what it has to match, and that in words.
mod grammar {
    pub type Grammar = (&'static str, &'static str, &'static str);

    pub const HOSTNAME: Grammar = (
        "the host name",
        "[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?",
        "up to 63 letters, digits and, within, hyphens (RFC 1123, 2.1)",
    );
    pub const USER: Grammar =
        ("the user name", "[a-z_][a-z0-9_-]{0,30}", "up to 31 small letters, digits, _ and -, beginning with a letter");
    pub const HASH: Grammar = (
        "the password's hash",
        r"\$[a-z0-9]+\$[a-zA-Z0-9./=,$_-]+",
        "a hash as crypt(5) writes it, such as `openssl passwd -6` prints",
    );
    pub const KEY: Grammar = (
        "the public key",
        r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-ssh-ed25519@openssh\.com|sk-ecdsa-sha2-nistp256@openssh\.com) [A-Za-z0-9+/]+={0,3}( [A-Za-z0-9@._+: -]*)?",
        "a line of an authorized_keys file without options, its comment of plain characters",
    );
    pub const LOCALE: Grammar = ("the locale", r"[a-z]{2,3}_[A-Z]{2}(\.UTF-8)?", "a locale such as en_US.UTF-8");
    pub const KEYBOARD: Grammar = ("the keyboard", "[a-z]{2,12}", "a layout such as us or de");
    pub const TIMEZONE: Grammar = (
        "the time zone",
        "[A-Z][A-Za-z0-9_+-]{0,30}(/[A-Z][A-Za-z0-9_+-]{0,30}){0,2}",
        "a time zone such as Europe/Berlin or UTC",
    );
    pub const DISK: Grammar = ("the disk", "/dev/[a-z][a-z0-9]{1,30}", "the name of a whole disk such as /dev/vda");
    pub const HOST: Grammar = (
        "the mirror's host",
        r"[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?){0,10}(:[0-9]{1,5})?",
        "a host such as mirror.example.org, with a port if need be",
    );
    pub const FOLDER: Grammar = ("the mirror's folder", "(/[a-zA-Z0-9][a-zA-Z0-9._+-]*)+/?", "a path such as /debian");
    pub const PACKAGE: Grammar =
        ("the package", r"[a-zA-Z0-9][a-zA-Z0-9+._-]+", "a package's name: letters, digits, +, ., _ and -");
    pub const PARAMETERS: Grammar = (
        "the kernel's further parameters",
        "[a-zA-Z0-9 ._,:=/@%+-]{0,1000}",
        "up to 1000 letters, digits, blanks and ._,:=/@%+-: boot loaders take others for orders of their own",
    );
    pub const WINDOWS_PASSWORD: Grammar =
        ("the password for Windows", r"[^\x00-\x1f\x7f]{1,127}", "1 to 127 characters without control characters");
    pub const PRODUCT_KEY: Grammar =
        ("the product key", "[A-Z0-9]{5}(-[A-Z0-9]{5}){4}", "five groups of five letters and digits");
}

/// The most keys or packages.
const MOST_ITEMS: usize = 256;
/// Texts longer than this are refused before they are looked at.
const LONGEST: usize = 10_000;

impl Answers {
    /// What is wrong with them, whatever they are for; with all of them right, none.
    pub fn problems(&self) -> Vec<AnswerError> {
        let mut found = Vec::new();
        let mut plain = |value: &str, (what, pattern, wanted): grammar::Grammar| {
            if !matches(value, pattern) {
                found.push(AnswerError::Value { what, value: printable(value), wanted });
            }
        };
        plain(&self.hostname, grammar::HOSTNAME);
        plain(&self.user.name, grammar::USER);
        self.user.ssh_keys.iter().take(MOST_ITEMS).for_each(|key| plain(key, grammar::KEY));
        plain(&self.locale, grammar::LOCALE);
        plain(&self.keyboard, grammar::KEYBOARD);
        plain(&self.timezone, grammar::TIMEZONE);
        plain(&self.disk, grammar::DISK);
        if let Some(mirror) = &self.mirror {
            plain(&mirror.host, grammar::HOST);
            plain(&mirror.folder, grammar::FOLDER);
        }
        self.packages.iter().take(MOST_ITEMS).for_each(|package| plain(package, grammar::PACKAGE));
        plain(&self.kernel_parameters, grammar::PARAMETERS);
        for (what, count) in [("public keys", self.user.ssh_keys.len()), ("packages", self.packages.len())] {
            if count > MOST_ITEMS {
                found.push(AnswerError::TooMany { what, count });
            }
        }
        if !is_full_name(&self.user.full_name) {
            let wanted = "a name of letters, digits, blanks, points, hyphens and apostrophes";
            found.push(AnswerError::Value { what: "the full name", value: printable(&self.user.full_name), wanted });
        }
        let mut secret = |value: &Option<String>, (what, pattern, wanted): grammar::Grammar| {
            if value.as_ref().is_some_and(|value| !matches(value, pattern)) {
                found.push(AnswerError::Secret { what, wanted });
            }
        };
        secret(&self.user.password_hash, grammar::HASH);
        secret(&self.windows.password, grammar::WINDOWS_PASSWORD);
        secret(&self.windows.product_key, grammar::PRODUCT_KEY);
        // Names that every system has already.
        if ["root", "daemon", "bin", "sys", "nobody", "sshd"].contains(&self.user.name.as_str()) {
            let wanted = "a user of one's own: the system has one of this name";
            found.push(AnswerError::Value { what: "the user name", value: self.user.name.clone(), wanted });
        }
        found
    }

    /// What is wrong with them for a Linux.
    pub(crate) fn problems_on_linux(&self) -> Vec<AnswerError> {
        let mut found = self.problems();
        if self.user.password_hash.is_none() && self.user.ssh_keys.is_empty() {
            found.push(AnswerError::NoLogin);
        }
        found
    }
}

/// Whether a text is empty, or a name as people have them in any script.
fn is_full_name(text: &str) -> bool {
    let is_edge = |c: Option<char>| c.is_none_or(|c| c.is_alphanumeric() || c == '.');
    let is_within = |c: char| c.is_alphanumeric() || " .'-".contains(c);
    text.chars().count() <= 80
        && text.chars().all(is_within)
        && text.chars().next().is_none_or(char::is_alphanumeric)
        && is_edge(text.chars().next_back())
}

/// Whether all of a text matches.
fn matches(text: &str, pattern: &str) -> bool {
    // The grammars are part of the program; a test compiles each.
    text.len() <= LONGEST && Regex::new(&format!("^(?:{pattern})$")).is_ok_and(|compiled| compiled.is_match(text))
}

/// The beginning of a text, without what a terminal would take for orders.
pub(crate) fn printable(text: &str) -> String {
    let shown: String = text.chars().take(60).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(60).is_some() { shown + ".." } else { shown }
}

/// A line of what a program said, as [`printable`] but longer.
pub(crate) fn printable_line(text: &str) -> String {
    text.chars().take(400).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
pub(crate) mod tests;
