//! Answers for Windows' installer from Vista on: `autounattend.xml` ("Unattended Windows Setup Reference", Microsoft).
//! It looks for that file in the root of removable drives, a floppy's among them.

use std::io::{self, Cursor};

use lodge_guests::{Architecture, Firmware};
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};

use crate::answers::{AnswerError, Answers, Finish, printable};

/// The file's name.
pub const FILE: &str = "autounattend.xml";

/// Names that Windows has for time zones (Unicode CLDR, windowsZones).
const TIMEZONES: &[(&str, &str)] = &[
    ("UTC", "UTC"),
    ("Etc/UTC", "UTC"),
    ("Europe/London", "GMT Standard Time"),
    ("Europe/Dublin", "GMT Standard Time"),
    ("Europe/Lisbon", "GMT Standard Time"),
    ("Europe/Berlin", "W. Europe Standard Time"),
    ("Europe/Vienna", "W. Europe Standard Time"),
    ("Europe/Zurich", "W. Europe Standard Time"),
    ("Europe/Amsterdam", "W. Europe Standard Time"),
    ("Europe/Rome", "W. Europe Standard Time"),
    ("Europe/Stockholm", "W. Europe Standard Time"),
    ("Europe/Paris", "Romance Standard Time"),
    ("Europe/Madrid", "Romance Standard Time"),
    ("Europe/Brussels", "Romance Standard Time"),
    ("Europe/Warsaw", "Central European Standard Time"),
    ("Europe/Prague", "Central Europe Standard Time"),
    ("Europe/Budapest", "Central Europe Standard Time"),
    ("Europe/Helsinki", "FLE Standard Time"),
    ("Europe/Kiev", "FLE Standard Time"),
    ("Europe/Athens", "GTB Standard Time"),
    ("Europe/Istanbul", "Turkey Standard Time"),
    ("Europe/Moscow", "Russian Standard Time"),
    ("America/New_York", "Eastern Standard Time"),
    ("America/Chicago", "Central Standard Time"),
    ("America/Denver", "Mountain Standard Time"),
    ("America/Los_Angeles", "Pacific Standard Time"),
    ("America/Sao_Paulo", "E. South America Standard Time"),
    ("Asia/Tokyo", "Tokyo Standard Time"),
    ("Asia/Shanghai", "China Standard Time"),
    ("Asia/Kolkata", "India Standard Time"),
    ("Asia/Singapore", "Singapore Standard Time"),
    ("Australia/Sydney", "AUS Eastern Standard Time"),
];

/// Languages whose keyboards XKB's layouts are.
const KEYBOARDS: &[(&str, &str)] = &[
    ("us", "en-US"),
    ("gb", "en-GB"),
    ("de", "de-DE"),
    ("at", "de-DE"),
    ("ch", "de-CH"),
    ("fr", "fr-FR"),
    ("be", "nl-BE"),
    ("nl", "nl-NL"),
    ("es", "es-ES"),
    ("pt", "pt-PT"),
    ("br", "pt-BR"),
    ("it", "it-IT"),
    ("dk", "da-DK"),
    ("no", "nb-NO"),
    ("se", "sv-SE"),
    ("fi", "fi-FI"),
    ("pl", "pl-PL"),
    ("cz", "cs-CZ"),
    ("hu", "hu-HU"),
    ("tr", "tr-TR"),
    ("ru", "ru-RU"),
    ("jp", "ja-JP"),
];

/// What is wrong with answers for Windows.
pub fn problems(answers: &Answers) -> Vec<AnswerError> {
    let mut found = answers.problems();
    // Fifteen characters are what NetBIOS leaves of a name.
    if answers.hostname.len() > 15 || answers.hostname.bytes().all(|byte| byte.is_ascii_digit()) {
        let wanted = "a name for Windows: up to 15 characters, not digits alone";
        found.push(AnswerError::Value { what: "the host name", value: printable(&answers.hostname), wanted });
    }
    if answers.windows.image == 0 {
        let wanted = "a number from 1: the first Windows on the disc is 1";
        found.push(AnswerError::Value { what: "the number of the Windows", value: "0".into(), wanted });
    }
    let refused = [
        (answers.user.password_hash.is_some(), "hash of a password", "give the password itself"),
        (!answers.user.ssh_keys.is_empty(), "public keys for SSH", "give a password"),
        (!answers.packages.is_empty(), "packages", "give none"),
        (answers.mirror.is_some(), "mirror", "give none"),
        (!answers.kernel_parameters.is_empty(), "kernel parameters", "give none"),
    ];
    found.extend(
        refused
            .into_iter()
            .filter(|(is_given, ..)| *is_given)
            .map(|(_, what, instead)| AnswerError::NotOnWindows { what, instead }),
    );
    for (what, value, known, instead) in
        [("time zone", &answers.timezone, TIMEZONES, "UTC"), ("keyboard", &answers.keyboard, KEYBOARDS, "us")]
    {
        if named(known, value).is_none() {
            found.push(AnswerError::NoWindowsName { what, value: printable(value), instead });
        }
    }
    found
}

fn named(known: &'static [(&str, &str)], value: &str) -> Option<&'static str> {
    known.iter().find(|(name, _)| *name == value).map(|(_, windows)| *windows)
}

/// Partitions of the disk: type, MiB (none for the rest), file system, label, letter, whether it is active.
type Partition = (&'static str, Option<u32>, Option<&'static str>, &'static str, Option<&'static str>, bool);

/// For UEFI ("UEFI/GPT-based hard drive partitions").
const UEFI: &[Partition] = &[
    ("EFI", Some(260), Some("FAT32"), "System", None, false),
    ("MSR", Some(16), None, "", None, false),
    ("Primary", None, Some("NTFS"), "Windows", Some("C"), false),
];

/// For a BIOS ("BIOS/MBR-based hard drive partitions").
const BIOS: &[Partition] = &[
    ("Primary", Some(500), Some("NTFS"), "System", None, true),
    ("Primary", None, Some("NTFS"), "Windows", Some("C"), false),
];

/// Writes elements below one another.
struct Xml {
    writer: Writer<Cursor<Vec<u8>>>,
    architecture: &'static str,
}

type Written = io::Result<()>;

impl Xml {
    /// An element of text.
    fn text(&mut self, name: &str, value: &str) -> Written {
        self.writer.create_element(name).write_text_content(BytesText::new(value))?;
        Ok(())
    }

    /// An element of elements.
    fn group(&mut self, name: &str, attributes: &[(&str, &str)], inside: impl FnOnce(&mut Self) -> Written) -> Written {
        let mut start = quick_xml::events::BytesStart::new(name);
        attributes.iter().for_each(|attribute| start.push_attribute(*attribute));
        let end = start.to_end().into_owned();
        self.writer.write_event(Event::Start(start.borrow()))?;
        inside(self)?;
        self.writer.write_event(Event::End(end))
    }

    /// An item of a list.
    fn item(&mut self, name: &str, inside: impl FnOnce(&mut Self) -> Written) -> Written {
        self.group(name, &[("wcm:action", "add")], inside)
    }

    /// A component's settings.
    fn component(&mut self, name: &str, inside: impl FnOnce(&mut Self) -> Written) -> Written {
        let architecture = self.architecture;
        let attributes = [
            ("name", name),
            ("processorArchitecture", architecture),
            ("publicKeyToken", "31bf3856ad364e35"),
            ("language", "neutral"),
            ("versionScope", "nonSxS"),
        ];
        self.group("component", &attributes, inside)
    }
}

/// The file, for checked answers.
///
/// # Errors
///
/// It can't be written, which in memory does not happen.
pub fn answer_file(answers: &Answers, firmware: Firmware, architecture: Architecture) -> io::Result<String> {
    let architecture = if architecture == Architecture::X86_64 { "amd64" } else { "x86" };
    let writer = Writer::new_with_indent(Cursor::new(Vec::new()), b' ', 2);
    let mut xml = Xml { writer, architecture };
    xml.writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("utf-8"), None)))?;
    let spaces = [
        ("xmlns", "urn:schemas-microsoft-com:unattend"),
        ("xmlns:wcm", "http://schemas.microsoft.com/WMIConfig/2002/State"),
    ];
    xml.group("unattend", &spaces, |xml| {
        xml.group("settings", &[("pass", "windowsPE")], |xml| windows_pe(xml, answers, firmware))?;
        xml.group("settings", &[("pass", "specialize")], |xml| {
            xml.component("Microsoft-Windows-Shell-Setup", |xml| {
                xml.text("ComputerName", &answers.hostname)?;
                xml.text("TimeZone", named(TIMEZONES, &answers.timezone).unwrap_or("UTC"))
            })
        })?;
        xml.group("settings", &[("pass", "oobeSystem")], |xml| oobe(xml, answers))
    })?;
    let bytes = xml.writer.into_inner().into_inner();
    String::from_utf8(bytes).map_err(io::Error::other)
}

fn language(answers: &Answers) -> String {
    answers.locale.split('.').next().unwrap_or_default().replace('_', "-")
}

fn locales(xml: &mut Xml, answers: &Answers) -> Written {
    let language = language(answers);
    xml.text("InputLocale", named(KEYBOARDS, &answers.keyboard).unwrap_or("en-US"))?;
    xml.text("SystemLocale", &language)?;
    xml.text("UILanguage", &language)?;
    xml.text("UserLocale", &language)
}

/// What is asked before anything is on the disk.
fn windows_pe(xml: &mut Xml, answers: &Answers, firmware: Firmware) -> Written {
    xml.component("Microsoft-Windows-International-Core-WinPE", |xml| {
        xml.group("SetupUILanguage", &[], |xml| xml.text("UILanguage", &language(answers)))?;
        locales(xml, answers)
    })?;
    let partitions = if firmware == Firmware::Uefi { UEFI } else { BIOS };
    xml.component("Microsoft-Windows-Setup", |xml| {
        xml.group("DiskConfiguration", &[], |xml| {
            xml.text("WillShowUI", "OnError")?;
            xml.item("Disk", |xml| {
                xml.text("DiskID", "0")?;
                xml.text("WillWipeDisk", "true")?;
                xml.group("CreatePartitions", &[], |xml| create_partitions(xml, partitions))?;
                xml.group("ModifyPartitions", &[], |xml| modify_partitions(xml, partitions))
            })
        })?;
        xml.group("ImageInstall", &[], |xml| {
            xml.group("OSImage", &[], |xml| {
                xml.group("InstallFrom", &[], |xml| {
                    xml.item("MetaData", |xml| {
                        xml.text("Key", "/IMAGE/INDEX")?;
                        xml.text("Value", &answers.windows.image.to_string())
                    })
                })?;
                xml.group("InstallTo", &[], |xml| {
                    xml.text("DiskID", "0")?;
                    xml.text("PartitionID", &partitions.len().to_string())
                })?;
                xml.text("WillShowUI", "OnError")
            })
        })?;
        xml.group("UserData", &[], |xml| {
            xml.text("AcceptEula", "true")?;
            xml.text("FullName", full_name(answers))?;
            match &answers.windows.product_key {
                Some(key) => xml.group("ProductKey", &[], |xml| {
                    xml.text("Key", key)?;
                    xml.text("WillShowUI", "OnError")
                }),
                None => Ok(()),
            }
        })
    })
}

fn create_partitions(xml: &mut Xml, partitions: &[Partition]) -> Written {
    for (number, (kind, size, ..)) in (1..).zip(partitions) {
        xml.item("CreatePartition", |xml| {
            xml.text("Order", &number.to_string())?;
            xml.text("Type", kind)?;
            match size {
                Some(size) => xml.text("Size", &size.to_string()),
                None => xml.text("Extend", "true"),
            }
        })?;
    }
    Ok(())
}

fn modify_partitions(xml: &mut Xml, partitions: &[Partition]) -> Written {
    let formatted = (1..).zip(partitions).filter(|(_, (_, _, format, ..))| format.is_some());
    for (order, (number, (_, _, format, label, letter, is_active))) in (1..).zip(formatted) {
        xml.item("ModifyPartition", |xml| {
            xml.text("Order", &i32::to_string(&order))?;
            xml.text("PartitionID", &i32::to_string(&number))?;
            if *is_active {
                xml.text("Active", "true")?;
            }
            xml.text("Format", format.unwrap_or_default())?;
            xml.text("Label", label)?;
            letter.map_or(Ok(()), |letter| xml.text("Letter", letter))
        })?;
    }
    Ok(())
}

fn full_name(answers: &Answers) -> &str {
    let user = &answers.user;
    if user.full_name.is_empty() { &user.name } else { &user.full_name }
}

/// What is asked at the first start.
fn oobe(xml: &mut Xml, answers: &Answers) -> Written {
    xml.component("Microsoft-Windows-International-Core", |xml| locales(xml, answers))?;
    xml.component("Microsoft-Windows-Shell-Setup", |xml| {
        let password = |xml: &mut Xml| {
            xml.group("Password", &[], |xml| {
                xml.text("Value", answers.windows.password.as_deref().unwrap_or_default())?;
                xml.text("PlainText", "true")
            })
        };
        // The end of the installation is known by this command, which takes one log-in.
        if answers.finish == Finish::PowerOff {
            xml.group("AutoLogon", &[], |xml| {
                password(xml)?;
                xml.text("Enabled", "true")?;
                xml.text("LogonCount", "1")?;
                xml.text("Username", &answers.user.name)
            })?;
            xml.group("FirstLogonCommands", &[], |xml| {
                xml.item("SynchronousCommand", |xml| {
                    xml.text("Order", "1")?;
                    xml.text("CommandLine", "shutdown /s /t 0")
                })
            })?;
        }
        xml.group("OOBE", &[], |xml| {
            xml.text("HideEULAPage", "true")?;
            xml.text("HideWirelessSetupInOOBE", "true")?;
            xml.text("NetworkLocation", "Work")?;
            xml.text("ProtectYourPC", "3")
        })?;
        xml.group("UserAccounts", &[], |xml| {
            xml.group("LocalAccounts", &[], |xml| {
                xml.item("LocalAccount", |xml| {
                    password(xml)?;
                    xml.text("DisplayName", full_name(answers))?;
                    xml.text("Group", "Administrators")?;
                    xml.text("Name", &answers.user.name)
                })
            })
        })
    })
}

#[cfg(test)]
mod tests;
