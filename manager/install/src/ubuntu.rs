//! Answers for Ubuntu's installer: autoinstall ("Autoinstall configuration reference manual"), which it gets from
//! cloud-init's data source NoCloud, the files `user-data` and `meta-data` on a volume labelled `CIDATA`.

use serde::Serialize;

use crate::answers::{Answers, Finish};
use crate::debian::sudoers;

/// The kernel's parameter without which the installer asks whether it may overwrite the disk.
pub const KERNEL_PARAMETERS: &str = "autoinstall";

/// The volume's label.
pub const LABEL: &str = "CIDATA";

#[derive(Serialize)]
struct UserData<'a> {
    autoinstall: Autoinstall<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Autoinstall<'a> {
    version: u32,
    locale: &'a str,
    keyboard: Keyboard<'a>,
    timezone: &'a str,
    identity: Identity<'a>,
    ssh: Ssh<'a>,
    storage: Storage<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    apt: Option<Apt>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    packages: &'a [String],
    updates: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    late_commands: Vec<Vec<String>>,
    shutdown: &'static str,
}

#[derive(Serialize)]
struct Keyboard<'a> {
    layout: &'a str,
}

#[derive(Serialize)]
struct Identity<'a> {
    hostname: &'a str,
    username: &'a str,
    realname: &'a str,
    password: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Ssh<'a> {
    install_server: bool,
    allow_pw: bool,
    authorized_keys: &'a [String],
}

#[derive(Serialize)]
struct Storage<'a> {
    layout: Layout<'a>,
}

#[derive(Serialize)]
struct Layout<'a> {
    name: &'static str,
    r#match: Match<'a>,
}

#[derive(Serialize)]
struct Match<'a> {
    path: &'a str,
}

#[derive(Serialize)]
struct Apt {
    primary: [Primary; 1],
}

#[derive(Serialize)]
struct Primary {
    arches: [&'static str; 1],
    uri: String,
}

/// The file `user-data`.
///
/// # Errors
///
/// The values can't be written as YAML; checked ones can.
pub fn user_data(answers: &Answers) -> Result<String, serde_saphyr::ser::Error> {
    let user = &answers.user;
    let sudoers = sudoers(answers);
    let late_commands = if sudoers.is_empty() {
        Vec::new()
    } else {
        let file = format!("/target/etc/sudoers.d/{}", user.name);
        let write = format!("printf '%s\\n' '{}' > {file} && chmod 440 {file}", sudoers.trim_end());
        vec![vec!["sh".into(), "-c".into(), write]]
    };
    let data = UserData {
        autoinstall: Autoinstall {
            version: 1,
            locale: &answers.locale,
            keyboard: Keyboard { layout: &answers.keyboard },
            timezone: &answers.timezone,
            identity: Identity {
                hostname: &answers.hostname,
                username: &user.name,
                realname: if user.full_name.is_empty() { &user.name } else { &user.full_name },
                // A locked one.
                password: user.password_hash.as_deref().unwrap_or("!"),
            },
            ssh: Ssh { install_server: true, allow_pw: user.password_hash.is_some(), authorized_keys: &user.ssh_keys },
            storage: Storage { layout: Layout { name: "direct", r#match: Match { path: &answers.disk } } },
            apt: answers.mirror.as_ref().map(|mirror| Apt {
                primary: [Primary { arches: ["amd64"], uri: format!("http://{}{}", mirror.host, mirror.folder) }],
            }),
            packages: &answers.packages,
            updates: "security",
            late_commands,
            shutdown: match answers.finish {
                Finish::PowerOff => "poweroff",
                Finish::Reboot => "reboot",
            },
        },
    };
    // A line stays a line, however long: YAML allows to fold it, which nobody needs to follow who reads it.
    let options = serde_saphyr::ser_options! { min_fold_chars: usize::MAX, folded_wrap_chars: usize::MAX };
    Ok(format!("#cloud-config\n{}", serde_saphyr::to_string_with_options(&data, options)?))
}

/// The file `meta-data`; a host name needs no quoting.
pub fn meta_data(answers: &Answers) -> String {
    format!("instance-id: \"lodge-{0}\"\nlocal-hostname: \"{0}\"\n", answers.hostname)
}

#[cfg(test)]
mod tests;
