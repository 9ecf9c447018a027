//! How much is computed at once in the backward pass: as many sums as there are registers.

/// Accumulators that fit into the registers, a few left for what is added to them.
pub(crate) const fn accumulators(registers: usize) -> usize {
    if registers >= 32 { 28 } else { 12 }
}

/// Calls `$function::<S, K, V>` for the kernel and vectors at hand.
macro_rules! for_size {
    ($function:ident, $kernel:expr, $vectors:expr, $arguments:tt) => {
        for_size!(@kernels $function, $kernel, $vectors, $arguments, 1 [1], 2 [1 2], 3 [1 2 3],
            4 [1 2 3 4], 5 [1 2 3 4 5], 6 [1 2 3 4], 7 [1 2 3 4])
    };
    (@kernels $function:ident, $kernel:expr, $vectors:expr, $arguments:tt,
        $($k:literal [$($v:literal)+]),+) => {
        match $kernel {
            $($k => for_size!(@vectors $function, $k, $vectors, $arguments, $($v)+),)+
            _ => unreachable!("kernels are 1 to 7"),
        }
    };
    (@vectors $function:ident, $k:literal, $vectors:expr, $arguments:tt, $($v:literal)+) => {
        match $vectors {
            $($v => for_size!(@call $function, $k, $v, $arguments),)+
            _ => unreachable!("a run has as many vectors as the kernel has columns, or fewer"),
        }
    };
    (@call $function:ident, $k:literal, $v:literal, ($($argument:expr),+)) => {
        $function::<S, $k, $v>($($argument),+)
    };
}

pub(crate) use for_size;
