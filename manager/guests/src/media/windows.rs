//! What a Windows image (WIM, also as ESD) says of the first Windows in it ("Windows Imaging File Format", Microsoft,
//! 2007): its header leads to XML.

use quick_xml::Reader;
use quick_xml::events::Event;

use super::MediaError;
use super::disc::Node;
use super::source::{Source, bytes, le64};

/// A header's length.
const HEADER: usize = 208;
/// The most that the XML may have; real ones have some KiB for each Windows in the image.
const MOST: u64 = 1 << 20;

/// What the image says that Windows is installed from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowsImage {
    /// The build, as Windows is known by.
    pub build: String,
    /// `WinNT` for desktops, `ServerNT`.
    pub product: String,
    /// The edition of the first Windows in it.
    pub edition: String,
    /// Its language.
    pub language: String,
    /// Its architecture, as a number: 0 is x86, 9 x86-64, 12 ARM64.
    pub architecture: String,
}

impl WindowsImage {
    /// Reads an image's description; `None` if it is no such image.
    pub fn read(source: &Source<'_>, file: &Node) -> Result<Option<Self>, MediaError> {
        let header = file.read(source, 0, HEADER)?;
        if bytes(&header, 0) != *b"MSWIM\0\0\0" {
            return Ok(None);
        }
        // The third resource, behind the offset table's: 7 bytes of size, flags, offset, size unpacked.
        let length = le64(&header, 72) & 0x00ff_ffff_ffff_ffff;
        if length > MOST {
            return Err(MediaError::Damaged("the description of its Windows is too long"));
        }
        let text = file.read(source, le64(&header, 80), usize::try_from(length).unwrap_or(0))?;
        let units = text.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        let text: String = char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        Ok(Self::parse(text.trim_start_matches('\u{feff}')))
    }

    /// Understands the XML: what the first `IMAGE/WINDOWS` says.
    fn parse(text: &str) -> Option<Self> {
        let mut found = Self::default();
        let mut reader = Reader::from_str(text);
        let mut path: Vec<String> = Vec::new();
        // Deeper than this is nothing that is looked for.
        const DEEPEST: usize = 16;
        loop {
            match reader.read_event() {
                Ok(Event::Start(element)) if path.len() < DEEPEST => {
                    path.push(element.name().as_ref().to_ascii_uppercase())
                }
                Ok(Event::End(_)) => {
                    if path.pop()? == "IMAGE" {
                        break;
                    }
                }
                Ok(Event::Text(text)) => {
                    let parts: Vec<&str> = path.iter().map(String::as_str).collect();
                    let place = match parts.as_slice() {
                        ["WIM", "IMAGE", "WINDOWS", "VERSION", "BUILD"] => &mut found.build,
                        ["WIM", "IMAGE", "WINDOWS", "PRODUCTTYPE"] => &mut found.product,
                        ["WIM", "IMAGE", "WINDOWS", "EDITIONID"] => &mut found.edition,
                        ["WIM", "IMAGE", "WINDOWS", "LANGUAGES", "DEFAULT"] => &mut found.language,
                        ["WIM", "IMAGE", "WINDOWS", "ARCH"] => &mut found.architecture,
                        _ => continue,
                    };
                    *place = text.trim().to_owned();
                }
                Ok(Event::Eof) | Ok(Event::Start(_)) | Err(_) => break,
                Ok(_) => {}
            }
        }
        (!found.build.is_empty()).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_windows_of_an_image_is_told() {
        let text = "<WIM><TOTALBYTES>1</TOTALBYTES><IMAGE INDEX=\"1\"><NAME>S</NAME><WINDOWS><ARCH>9</ARCH>\
                    <EDITIONID>ServerStandard</EDITIONID><PRODUCTTYPE>ServerNT</PRODUCTTYPE><LANGUAGES>\
                    <LANGUAGE>en-US</LANGUAGE><DEFAULT>en-US</DEFAULT></LANGUAGES><VERSION><MAJOR>10</MAJOR>\
                    <BUILD>20348</BUILD></VERSION></WINDOWS></IMAGE><IMAGE INDEX=\"2\"><WINDOWS><VERSION><BUILD>1</BUILD>\
                    </VERSION></WINDOWS></IMAGE></WIM>";
        let found = WindowsImage::parse(text).unwrap();
        assert_eq!((found.build.as_str(), found.product.as_str()), ("20348", "ServerNT"));
        assert_eq!((found.edition.as_str(), found.language.as_str()), ("ServerStandard", "en-US"));
        assert_eq!(found.architecture, "9");
        for wrong in ["", "<WIM>", "</WIM>", "<WIM></IMAGE>", "<BUILD>1</BUILD>", &"<a>".repeat(9000)] {
            assert_eq!(WindowsImage::parse(wrong), None, "{wrong}");
        }
    }
}
