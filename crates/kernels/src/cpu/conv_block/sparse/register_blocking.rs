//! Register blocking: the backward kernels keep a block of accumulators in registers.

/// Returns how many accumulators fit into the registers, with a few left for operands.
pub(super) const fn max_accumulators(registers: usize) -> usize {
    if registers >= 32 { 28 } else { 12 }
}

/// Calls `$function::<S, K, V>($arguments)` with `K = $kernel` and `V = $vectors`, which are known at run time.
macro_rules! dispatch_size {
    ($function:ident, $kernel:expr, $vectors:expr, $arguments:tt) => {
        dispatch_size!(@kernels $function, $kernel, $vectors, $arguments, 1 [1], 2 [1 2], 3 [1 2 3],
            4 [1 2 3 4], 5 [1 2 3 4 5], 6 [1 2 3 4], 7 [1 2 3 4])
    };
    (@kernels $function:ident, $kernel:expr, $vectors:expr, $arguments:tt,
        $($k:literal [$($v:literal)+]),+) => {
        match $kernel {
            $($k => dispatch_size!(@vectors $function, $k, $vectors, $arguments, $($v)+),)+
            _ => unreachable!("BlockShape supports kernels of 1 to 7"),
        }
    };
    (@vectors $function:ident, $k:literal, $vectors:expr, $arguments:tt, $($v:literal)+) => {
        match $vectors {
            $($v => dispatch_size!(@call $function, $k, $v, $arguments),)+
            _ => unreachable!("run_parts returns parts that fit into the registers"),
        }
    };
    (@call $function:ident, $k:literal, $v:literal, ($($argument:expr),+)) => {
        $function::<S, $k, $v>($($argument),+)
    };
}

pub(super) use dispatch_size;
