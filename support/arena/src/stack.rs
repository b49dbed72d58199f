//! Builds the stack that a program starts with: [`Contents`]. System V ABI, AMD64 supplement, section 3.4.1 "Initial
//! Stack and Register State".
//!
//! ```text
//!   rsp ► argc, argv.., 0, envp.., 0, auxiliary vector.., │ arguments, environment, other strings │ end
//! ```

use std::ops::Range;

/// An entry of the auxiliary vector: kind and value.
pub type Auxiliary = (u64, u64);

/// What a program is given.
#[derive(Debug, Default)]
pub struct Contents {
    pub arguments: Vec<Vec<u8>>,
    pub environment: Vec<Vec<u8>>,
    pub auxiliary: Vec<Auxiliary>,
    /// Bytes that entries of the auxiliary vector lead to, with the kinds of these.
    pub others: Vec<(u64, Vec<u8>)>,
}

/// The bytes at the end of the stack, and what is where.
#[derive(Debug)]
pub struct Built {
    pub bytes: Vec<u8>,
    /// The stack pointer, at which the bytes begin.
    pub pointer: u64,
    pub arguments: Range<u64>,
    pub environment: Range<u64>,
    pub auxiliary: Range<u64>,
}

impl Contents {
    /// What to put at the end of a stack, if it ends at `end`.
    pub fn build(&self, end: u64) -> Built {
        let length = |strings: &[Vec<u8>]| strings.iter().map(|string| string.len() + 1).sum::<usize>();
        let mut strings = Vec::new();
        let total = length(&self.arguments) + length(&self.environment);
        let total = total + self.others.iter().map(|(_, bytes)| bytes.len() + 16).sum::<usize>();
        // A null pointer ends the stack, as the kernel has it.
        let strings_at = (end - 8 - total as u64) & !15;

        let mut words = vec![self.arguments.len() as u64];
        let mut ranges = Vec::new();
        for list in [&self.arguments, &self.environment] {
            let start = strings_at + strings.len() as u64;
            for string in list {
                words.push(strings_at + strings.len() as u64);
                strings.extend_from_slice(string);
                strings.push(0);
            }
            words.push(0);
            ranges.push(start..strings_at + strings.len() as u64);
        }
        let mut auxiliary = self.auxiliary.clone();
        for (kind, bytes) in &self.others {
            strings.resize(strings.len().next_multiple_of(16), 0);
            let at = strings_at + strings.len() as u64;
            strings.extend_from_slice(bytes);
            auxiliary.iter_mut().filter(|entry| entry.0 == *kind).for_each(|entry| entry.1 = at);
        }
        let before = words.len() as u64;
        words.extend(auxiliary.iter().chain([&(0, 0)]).flat_map(|(kind, value)| [*kind, *value]));
        let pointer = (strings_at - 8 * words.len() as u64) & !15;

        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.resize((strings_at - pointer) as usize, 0);
        bytes.extend(strings);
        bytes.resize((end - pointer) as usize, 0);
        let auxiliary = pointer + 8 * before..pointer + 8 * words.len() as u64;
        Built { bytes, pointer, arguments: ranges[0].clone(), environment: ranges[1].clone(), auxiliary }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_where_pointers_lead() {
        let strings = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
        for extra in 0..20 {
            let contents = Contents {
                arguments: strings(&["program", "", &"x".repeat(extra)]),
                environment: strings(&["A=1", "B"]),
                auxiliary: vec![(6, 4096), (25, 0)],
                others: vec![(25, vec![7; 16])],
            };
            let end = 0x7000;
            let built = contents.build(end);
            assert_eq!((built.pointer % 16, built.pointer + built.bytes.len() as u64), (0, end));
            let bytes_at = |at: u64| &built.bytes[(at - built.pointer) as usize..];
            let word = |n: u64| u64::from_le_bytes(bytes_at(built.pointer + 8 * n)[..8].try_into().unwrap());
            let text = |at: u64| bytes_at(at).split(|byte| *byte == 0).next().unwrap().to_vec();
            assert_eq!(word(0), 3);
            assert_eq!((1..4).map(|n| text(word(n))).collect::<Vec<_>>(), contents.arguments);
            assert_eq!((5..7).map(|n| text(word(n))).collect::<Vec<_>>(), contents.environment);
            assert_eq!([word(4), word(7)], [0, 0]);
            assert_eq!((word(8), word(9), word(10)), (6, 4096, 25));
            assert_eq!(bytes_at(word(11))[..16], [7; 16]);
            assert_eq!([word(12), word(13)], [0, 0]);
            assert_eq!(built.auxiliary, built.pointer + 64..built.pointer + 112);
            assert_eq!(built.arguments, word(1)..word(5));
            assert_eq!(built.environment.end, word(6) + 2);
        }
    }
}
