//! Answers for Anaconda, the installer of Fedora, Red Hat Enterprise Linux and its kin: kickstart (pykickstart's
//! "Kickstart Documentation"), which it reads from `ks.cfg` on a volume labelled `OEMDRV`.

use crate::answers::{Answers, Finish};
use crate::debian::sudoers;

/// The kernel's parameter: in text.
pub const KERNEL_PARAMETERS: &str = "inst.text";

/// The volume's label.
pub const LABEL: &str = "OEMDRV";

/// The file `ks.cfg`.
pub fn kickstart(answers: &Answers) -> String {
    let user = &answers.user;
    let disk = answers.disk.trim_start_matches("/dev/");
    let mut text = String::new();
    let mut line = |command: String| {
        text += &command;
        text += "\n";
    };
    line("text".into());
    line(format!("lang {}", answers.locale));
    line(format!("keyboard --xlayouts='{}'", answers.keyboard));
    line(format!("timezone {} --utc", answers.timezone));
    line(format!("network --bootproto=dhcp --device=link --activate --hostname={}", answers.hostname));
    if let Some(mirror) = &answers.mirror {
        line(format!("url --url=\"http://{}{}\"", mirror.host, mirror.folder));
    }
    line("rootpw --lock".into());
    let name = if user.full_name.is_empty() { &user.name } else { &user.full_name };
    let password = match &user.password_hash {
        Some(hash) => format!("--iscrypted --password={hash}"),
        None => "--lock".into(),
    };
    line(format!("user --name={} --gecos=\"{name}\" --groups=wheel {password}", user.name));
    line("firstboot --disable".into());
    line(format!("ignoredisk --only-use={disk}"));
    line("zerombr".into());
    line(format!("clearpart --all --initlabel --drives={disk}"));
    line(format!("bootloader --boot-drive={disk} --append=\"console=ttyS0\""));
    line("autopart --type=plain".into());
    line(match answers.finish {
        Finish::PowerOff => "poweroff".into(),
        Finish::Reboot => "reboot --eject".into(),
    });
    line("%packages".into());
    line("@core".into());
    answers.packages.iter().for_each(|package| line(package.clone()));
    line("%end".into());
    let sudoers = sudoers(answers);
    if user.ssh_keys.is_empty() && sudoers.is_empty() {
        return text;
    }
    // The command `sshkey` is not in all versions. No value holds a quotation mark.
    line("%post --erroronfail".into());
    if !user.ssh_keys.is_empty() {
        let folder = format!("/home/{}/.ssh", user.name);
        line(format!("mkdir -p -m 700 {folder}"));
        for key in &user.ssh_keys {
            line(format!("printf '%s\\n' '{key}' >> {folder}/authorized_keys"));
        }
        line(format!("chmod 600 {folder}/authorized_keys"));
        line(format!("chown -R {}: {folder}", user.name));
        line(format!("restorecon -R {folder} || true"));
    }
    if !sudoers.is_empty() {
        let file = format!("/etc/sudoers.d/{}", user.name);
        line(format!("printf '%s\\n' '{}' > {file}", sudoers.trim_end()));
        line(format!("chmod 440 {file}"));
    }
    line("%end".into());
    text
}

#[cfg(test)]
mod tests;
