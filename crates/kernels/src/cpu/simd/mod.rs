//! Vector instructions, chosen at run time, and the memory that the kernels use them on.
//!
//! Every function that takes or returns vectors is `#[inline(always)]`. The compiler would compile a function that
//! it does not inline, which includes closures and array methods, for the baseline instruction set, many times slower.

mod instruction_set;
mod vector;
mod transpose;
mod buffer;
mod map;
mod math;

pub(crate) use buffer::{AlignedBuffer, ScratchBuffer, init_vec};
pub(crate) use instruction_set::InstructionSet;
pub use instruction_set::{UnknownInstructionSet, instruction_set};
pub(crate) use map::{VectorFunction, map_vectors};
pub(crate) use math::{exp, polynomial};
pub(crate) use transpose::{transpose, transpose_into};
pub(crate) use vector::{load, mul_add, store};
