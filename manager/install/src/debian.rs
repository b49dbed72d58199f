//! Answers for Debian's installer: preseeding ("Debian GNU/Linux Installation Guide", appendix B, for bookworm).
//!
//! They go into the installer's initial RAM disk (B.2.1), where they are read before the first question. What is done at
//! the end is a script beside them, so that no value passes through quoting.

use crate::answers::{Answers, Finish};
use crate::carrier::Archive;

/// The kernel's parameters: nothing is asked that has a default.
pub const KERNEL_PARAMETERS: &str = "auto=true priority=critical DEBIAN_FRONTEND=noninteractive";

/// Where the script and what it copies are in the initial RAM disk.
const FOLDER: &str = "lodge";

/// Sends the installer's log to the second serial port, if there is one, where [`crate::stages`] reads it.
const LOG: &str = "\
#!/bin/sh
[ -c /dev/ttyS1 ] || exit 0
# Whoever runs this waits until nobody has what it was given open.
for fd in 3 4 5 6 7 8 9; do eval \"exec $fd>&-\"; done
tail -n +1 -f /var/log/syslog </dev/null >/dev/ttyS1 2>/dev/null &
";

/// What the script says in the log when all is done.
pub const INSTALLED: &str = "lodge: the system is installed";

/// The archive for the initial RAM disk.
pub fn archive(answers: &Answers) -> Archive {
    let mut archive = Archive::default();
    archive.file("preseed.cfg", 0o644, preseed(answers).into_bytes());
    archive.directory(FOLDER);
    archive.file(&format!("{FOLDER}/log"), 0o755, LOG.as_bytes().to_vec());
    archive.file(&format!("{FOLDER}/finish"), 0o755, script(answers).into_bytes());
    let keys: String = answers.user.ssh_keys.iter().map(|key| format!("{key}\n")).collect();
    archive.file(&format!("{FOLDER}/authorized_keys"), 0o644, keys.into_bytes());
    archive.file(&format!("{FOLDER}/sudoers"), 0o644, sudoers(answers).into_bytes());
    archive
}

/// One who has no password can't give it.
pub fn sudoers(answers: &Answers) -> String {
    match answers.user.password_hash {
        Some(_) => String::new(),
        None => format!("{} ALL=(ALL:ALL) NOPASSWD: ALL\n", answers.user.name),
    }
}

/// The preseed file.
pub fn preseed(answers: &Answers) -> String {
    let user = &answers.user;
    let mut text = String::from("#_preseed_V1\n");
    let mut line = |question: &str, kind: &str, value: &str| {
        let owner = match question.split('/').next() {
            Some("tasksel") => "tasksel",
            Some("popularity-contest") => "popularity-contest",
            _ => "d-i",
        };
        text += format!("{owner} {question} {kind} {value}").trim_end();
        text += "\n";
    };
    // B.5.1: before anything else.
    line("preseed/early_command", "string", &format!("sh /{FOLDER}/log"));
    // B.4.1 to B.4.4: language, network, mirror.
    line("debian-installer/locale", "string", &answers.locale);
    line("keyboard-configuration/xkb-keymap", "select", &answers.keyboard);
    line("console-setup/ask_detect", "boolean", "false");
    line("netcfg/choose_interface", "select", "auto");
    line("netcfg/get_hostname", "string", &answers.hostname);
    line("netcfg/hostname", "string", &answers.hostname);
    line("netcfg/get_domain", "string", "");
    line("netcfg/wireless_wep", "string", "");
    line("hw-detect/firmware-lookup", "string", "never");
    line("hw-detect/load_firmware", "boolean", "false");
    line("mirror/protocol", "string", "http");
    // Without one the installer takes that of its own.
    if let Some(mirror) = &answers.mirror {
        line("mirror/country", "string", "manual");
        line("mirror/http/hostname", "string", &mirror.host);
        line("mirror/http/directory", "string", &mirror.folder);
    }
    line("mirror/http/proxy", "string", "");
    // B.4.5: accounts.
    line("passwd/root-login", "boolean", "false");
    line("passwd/make-user", "boolean", "true");
    line("passwd/user-fullname", "string", if user.full_name.is_empty() { &user.name } else { &user.full_name });
    line("passwd/username", "string", &user.name);
    // No password is the hash of `!`: a locked one.
    line("passwd/user-password-crypted", "password", user.password_hash.as_deref().unwrap_or("!"));
    // B.4.6: clock.
    line("clock-setup/utc", "boolean", "true");
    line("time/zone", "string", &answers.timezone);
    line("clock-setup/ntp", "boolean", "true");
    // B.4.7: all of the one disk, whatever is on it.
    line("partman-auto/disk", "string", &answers.disk);
    line("partman-auto/method", "string", "regular");
    line("partman-auto/choose_recipe", "select", "atomic");
    line("partman-lvm/device_remove_lvm", "boolean", "true");
    line("partman-md/device_remove_md", "boolean", "true");
    line("partman-efi/non_efi_system", "boolean", "true");
    line("partman-partitioning/confirm_write_new_label", "boolean", "true");
    line("partman/choose_partition", "select", "finish");
    line("partman/confirm", "boolean", "true");
    line("partman/confirm_nooverwrite", "boolean", "true");
    line("partman/mount_style", "select", "uuid");
    // B.4.9, B.4.10: where packages come from, and which.
    line("apt-setup/cdrom/set-first", "boolean", "false");
    line("apt-setup/cdrom/set-next", "boolean", "false");
    line("apt-setup/cdrom/set-failed", "boolean", "false");
    line("apt-setup/disable-cdrom-entries", "boolean", "true");
    line("apt-setup/use_mirror", "boolean", "true");
    line("tasksel/first", "multiselect", "standard, ssh-server");
    let packages: Vec<&str> = ["sudo"].into_iter().chain(answers.packages.iter().map(String::as_str)).collect();
    line("pkgsel/include", "string", &packages.join(" "));
    line("pkgsel/upgrade", "select", "none");
    line("pkgsel/update-policy", "select", "none");
    line("popularity-contest/participate", "boolean", "false");
    // B.4.11: the boot loader, also where firmware looks that has forgotten its variables.
    line("grub-installer/only_debian", "boolean", "true");
    line("grub-installer/with_other_os", "boolean", "true");
    line("grub-installer/bootdev", "string", &answers.disk);
    line("grub-installer/force-efi-extra-removable", "boolean", "true");
    // B.4.12, B.5.1: the end.
    line("cdrom-detect/eject", "boolean", "true");
    line("finish-install/reboot_in_progress", "note", "");
    if answers.finish == Finish::PowerOff {
        line("debian-installer/exit/poweroff", "boolean", "true");
    }
    line("preseed/late_command", "string", &format!("sh /{FOLDER}/finish"));
    text
}

/// What is done in the installer when the system is there, under /target.
fn script(answers: &Answers) -> String {
    let name = &answers.user.name;
    let mut text = String::from("#!/bin/sh\nset -e\n");
    if !answers.user.ssh_keys.is_empty() {
        text += &format!(
            "mkdir -p /target/home/{name}/.ssh\n\
             cp /{FOLDER}/authorized_keys /target/home/{name}/.ssh/authorized_keys\n\
             chmod 700 /target/home/{name}/.ssh\n\
             chmod 600 /target/home/{name}/.ssh/authorized_keys\n\
             in-target chown -R {name}: /home/{name}/.ssh\n"
        );
    }
    text += &format!(
        "if [ -s /{FOLDER}/sudoers ]; then\n\
         cp /{FOLDER}/sudoers /target/etc/sudoers.d/{name}\n\
         chmod 440 /target/etc/sudoers.d/{name}\n\
         fi\n"
    );
    text += &format!("logger '{INSTALLED}'\n");
    text
}

#[cfg(test)]
mod tests;
