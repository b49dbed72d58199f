//! What DHCP tells a client of its boot file.
//!
//! | client | how it is known | what it is told |
//! |---|---|---|
//! | PXE ROM, UEFI's PXE, iPXE | class `PXEClient` | server, file, and that it is to load just that |
//! | UEFI's HTTP boot | class `HTTPClient` | the file's URL, and that the offer is meant for it |
//! | iPXE | user class `iPXE`, or option 175 | besides, that no other server is to be waited for |
//! | GRUB, any other | none of these | server and file, in the fields of the header |
//!
//! By RFC 2131, RFC 2132, RFC 4578 (options 93, 94, 97), the PXE specification 2.1 and the UEFI specification 2.10, section
//! 24.7. [`decode_request`] is how what guests send becomes a message.

use std::net::Ipv4Addr;

use dhcproto::Decodable as _;
use dhcproto::v4::{Architecture, DhcpOption, Message, OptionCode, UnknownOption};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::folder::{Folder, FolderError};

#[cfg(test)]
mod tests;

/// What stands for the architecture in a boot file's name.
const PLACE: &str = "{arch}";
/// What comes right before the options (RFC 2131, section 3).
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// The options before which a packet has its header and the magic number (RFC 2131, sections 2 and 3).
const OPTIONS: usize = 240;
/// The `file` field without its NUL.
const FILE_FIELD: usize = 127;
/// The longest option.
const LONGEST_OPTION: usize = 255;
/// iPXE's own options, encapsulated.
const IPXE: u8 = 175;
/// Among these: other servers' offers are not waited for.
const NO_PROXY_DHCP: [u8; 3] = [176, 1, 1];
/// PXE's options, encapsulated: discovery control (6), of which bit 3 says that the file is to be loaded without a menu and
/// without looking for boot servers (PXE 2.1, the table of its DHCP options); 255 ends them.
const PXE_JUST_LOAD: [u8; 4] = [6, 1, 8, 255];
/// What of a path is not written as it is in a URL (RFC 3986, section 3.3).
const NOT_IN_PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Which file a guest boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootFile {
    /// This one, whatever the guest is.
    Same(String),
    /// One by architecture: `{arch}` in the name becomes `bios`, `efi32` or `efi64`.
    ByArchitecture(String),
}

/// What an offer is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferConfig {
    /// The address of the server by TFTP and HTTP.
    pub server: Ipv4Addr,
    /// The file.
    pub bootfile: BootFile,
}

/// What a reply has of the boot file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The field of that name: the server that the client asks next.
    pub siaddr: Ipv4Addr,
    /// The `file` field, at most 127 bytes; none if the name is longer, or a URL.
    pub fname: Option<Vec<u8>>,
    /// The options, each of which the server inserts.
    pub options: Vec<DhcpOption>,
}

impl BootFile {
    /// A boot file of a folder's. If there is no file of that very name and it has `{arch}` in it, it is one by architecture.
    ///
    /// # Errors
    /// It is not there for any architecture.
    pub fn new(folder: &Folder, name: &str) -> Result<Self, FolderError> {
        match folder.file(name.as_bytes()) {
            Ok(_) => return Ok(Self::Same(name.into())),
            Err(error) if !name.contains(PLACE) => return Err(error),
            Err(_) => {}
        }
        let found = ["bios", "efi32", "efi64"]
            .into_iter()
            .any(|architecture| folder.file(name.replace(PLACE, architecture).as_bytes()).is_ok());
        if !found {
            return Err(FolderError::Missing { asked: name.into() });
        }
        Ok(Self::ByArchitecture(name.into()))
    }

    /// The file's name for an architecture; none for one that is not a PC's.
    fn name(&self, architecture: Option<Architecture>) -> Option<String> {
        match self {
            Self::Same(name) => Some(name.clone()),
            Self::ByArchitecture(name) => Some(name.replace(PLACE, firmware(architecture)?)),
        }
    }
}

/// The word for an architecture (RFC 4578, section 2.1, and IANA's registry that it began).
fn firmware(architecture: Option<Architecture>) -> Option<&'static str> {
    let Some(architecture) = architecture else {
        // Clients older than the option are of the BIOS.
        return Some("bios");
    };
    match architecture {
        Architecture::X86_Bios | Architecture::PCAT_Bios_Http => Some("bios"),
        Architecture::X86 | Architecture::X86_Http => Some("efi32"),
        // 7 and 9 have changed their meanings and are both used for x86-64.
        Architecture::X64 | Architecture::BC | Architecture::X64_Http | Architecture::BC_Http => Some("efi64"),
        _ => None,
    }
}

/// Decodes a client's message, of which options are kept that a server looks at and that have a length which they can have:
/// others would be read into what follows them. Nothing if it is no message.
pub fn decode_request(packet: &[u8]) -> Option<Message> {
    let (header, mut options) = packet.split_at_checked(OPTIONS)?;
    if !header.ends_with(&COOKIE) {
        return None;
    }
    let mut kept = header.to_vec();
    // One that comes twice would be read as a longer one (RFC 3396).
    let mut seen = [false; 256];
    while let [code, rest @ ..] = options {
        let code = *code;
        if code == 0 {
            options = rest;
            continue;
        }
        let [length, rest @ ..] = rest else { break };
        let Some((value, rest)) = rest.split_at_checked(usize::from(*length)) else { break };
        options = rest;
        let value = match (OptionCode::from(code), value.len()) {
            (OptionCode::End, _) => break,
            (OptionCode::RequestedIpAddress | OptionCode::ServerIdentifier, 4)
            | (OptionCode::AddressLeaseTime, 4)
            | (OptionCode::MessageType, 1)
            | (OptionCode::MaxMessageSize, 2)
            | (OptionCode::ClientNetworkInterface, 3)
            | (OptionCode::ParameterRequestList, 1..)
            | (OptionCode::ClassIdentifier | OptionCode::UserClass | OptionCode::ClientIdentifier, _)
            | (OptionCode::ClientMachineIdentifier, _) => value,
            // A list, of which the first is what the client would like best (RFC 4578, section 2.1).
            (OptionCode::ClientSystemArchitecture, 2..) => &value[..2],
            (OptionCode::Hostname, 1..) if value.is_ascii() => value,
            _ if code == IPXE => value,
            _ => continue,
        };
        if !std::mem::replace(&mut seen[usize::from(code)], true) {
            kept.extend([code, value.len() as u8]);
            kept.extend_from_slice(value);
        }
    }
    kept.push(OptionCode::End.into());
    Message::decode(&mut dhcproto::Decoder::new(&kept)).ok()
}

/// What a client is told of its boot file. Nothing if there is none for it.
pub fn offer(request: &Message, config: &OfferConfig) -> Option<Offer> {
    let options = request.opts();
    let class = match options.get(OptionCode::ClassIdentifier) {
        Some(DhcpOption::ClassIdentifier(class)) => class.as_slice(),
        _ => &[],
    };
    let architecture = match options.get(OptionCode::ClientSystemArchitecture) {
        Some(DhcpOption::ClientSystemArchitecture(architecture)) => Some(*architecture),
        _ => None,
    };
    let is_asked = |code: OptionCode| match options.get(OptionCode::ParameterRequestList) {
        Some(DhcpOption::ParameterRequestList(codes)) => codes.contains(&code),
        _ => false,
    };
    let is_pxe = class.starts_with(b"PXEClient");
    let is_http = class.starts_with(b"HTTPClient");
    let name = config.bootfile.name(architecture)?;
    let mut offer = Offer { siaddr: config.server, fname: None, options: Vec::new() };
    let mut add = |option| offer.options.push(option);

    let file = if is_http { url(config.server, &name) } else { name };
    // One that fits no option is told to nobody, for half of it would be another's name.
    if file.len() >= LONGEST_OPTION {
        return None;
    }
    if is_pxe || is_http {
        // Firmware takes it for a text with a NUL behind it; some has none and reads on, and UEFI's writes one over the option
        // that follows (PxeBcDhcp4.c and HttpBootDhcp4.c of EDK II). Others have to expect one (RFC 2132, section 2).
        add(DhcpOption::BootfileName([file.as_bytes(), b"\0"].concat()));
    } else if is_asked(OptionCode::BootfileName) {
        add(DhcpOption::BootfileName(file.clone().into_bytes()));
    }
    if is_pxe || (!is_http && is_asked(OptionCode::TFTPServerName)) {
        add(DhcpOption::TFTPServerName(config.server.to_string().into_bytes()));
    }
    if !is_http && is_asked(OptionCode::TFTPServerAddress) {
        add(DhcpOption::TFTPServerAddress(config.server));
    }
    if is_pxe {
        add(DhcpOption::ClassIdentifier(b"PXEClient".to_vec()));
        add(DhcpOption::VendorExtensions(PXE_JUST_LOAD.to_vec()));
    }
    if is_http {
        add(DhcpOption::ClassIdentifier(b"HTTPClient".to_vec()));
    }
    if (is_pxe || is_http)
        && let Some(DhcpOption::ClientMachineIdentifier(identifier)) = options.get(OptionCode::ClientMachineIdentifier)
        // A type, and a GUID (RFC 4578, section 2.3).
        && identifier.len() == 17
    {
        add(DhcpOption::ClientMachineIdentifier(identifier.clone()));
    }
    if is_ipxe(request) {
        add(DhcpOption::Unknown(UnknownOption::new(IPXE.into(), NO_PROXY_DHCP.to_vec())));
    }
    offer.fname = (!is_http && file.len() <= FILE_FIELD).then(|| file.into_bytes());
    Some(offer)
}

/// Whether a client is iPXE: it says so in its user class, as plain text or as a list of texts with their lengths (RFC 3004),
/// or sends its own options.
fn is_ipxe(request: &Message) -> bool {
    let options = request.opts();
    let by_class = match options.get(OptionCode::UserClass) {
        Some(DhcpOption::UserClass(class)) => class == b"iPXE" || class.as_slice() == b"\x04iPXE",
        _ => false,
    };
    by_class || options.contains(IPXE.into())
}

/// A file's URL.
fn url(server: Ipv4Addr, name: &str) -> String {
    let name = name.replace('\\', "/");
    format!("http://{server}/{}", utf8_percent_encode(name.trim_start_matches('/'), NOT_IN_PATH))
}
