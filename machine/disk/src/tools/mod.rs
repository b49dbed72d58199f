//! What `lodge disk` does, as functions: [`create`], [`info`], [`convert`], [`check`], [`repair`], [`resize`],
//! [`compact`].
//!
//! Whatever makes a file makes it beside its place under a temporary name and moves it there when it is whole and on
//! stable storage ([`output::Output`]), so that nothing is left behind by what fails, and nothing is lost that was
//! there.

mod copy;
mod create;
mod inspect;
mod output;
mod resize;

pub use copy::{Compacted, Convert, Progress, compact, convert};
pub use create::{Backing, Create, create};
pub use inspect::{check, info, info_chain, repair};
pub use resize::resize;
