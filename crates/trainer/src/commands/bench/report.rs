//! The results of `trainer bench`.

use std::fmt;

use model::Precision;
use serde::Serialize;

use crate::commands::bench::timing::Percentiles;
use crate::process::peak_memory::PeakMemory;
use crate::process::printable::printable;
use crate::process::table::Table;

/// Rows and columns of the matrices in the product that the rates are compared with.
pub(super) const MATRIX_SIZE: usize = 1024;

/// The results, each the median of several measurements.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) device: String,
    pub(super) preset: String,
    /// Number format of training.
    pub(super) precision: Precision,
    /// Threads of the CPU backends.
    pub(super) threads: usize,
    /// Instruction set of the CPU kernels; `None` on other devices.
    pub(super) instruction_set: Option<&'static str>,
    /// Rate of the matrix product in the number format of training, in 10⁹ floating-point operations per second.
    pub(super) matmul_gflops: f64,
    /// Rate of the matrix product in `f32`, the number format of inference.
    pub(super) matmul_gflops_f32: f64,
    pub(super) train: Vec<Speed>,
    pub(super) inference: Vec<Speed>,
    /// Durations of the inference of one image, in seconds; `None` unless batches of one image were measured.
    pub(super) latency: Option<Percentiles>,
    /// Whether each peak of the memory is that of its measurement, rather than of the process until its end.
    pub(super) is_memory_per_row: bool,
}

/// The speed at one batch size.
#[derive(Debug, Serialize)]
pub(super) struct Speed {
    pub(super) batch: usize,
    pub(super) images_per_second: f64,
    /// The network's arithmetic rate, in 10⁹ floating-point operations per second.
    pub(super) gflops: f64,
    /// The arithmetic rate as a fraction of the matrix product's. Kernels that need fewer operations than the
    /// definition of the network can exceed 1.
    pub(super) matmul_share: f64,
    /// Peak of the resident memory, with freed memory that the allocator keeps; `None` where the system does not record it.
    pub(super) peak_memory_bytes: Option<u64>,
}

impl Speed {
    /// Compares a network of `flops` operations per image with a matrix product. Reads the peak of the memory.
    pub(super) fn new(
        batch: usize,
        images_per_second: f64,
        flops: f64,
        matmul_gflops: f64,
        memory: &PeakMemory,
    ) -> Self {
        let gflops = images_per_second * flops / 1e9;
        Self {
            batch,
            images_per_second,
            gflops,
            matmul_share: gflops / matmul_gflops,
            peak_memory_bytes: memory.bytes(),
        }
    }
}

impl Report {
    /// Returns the rates of the matrix product as text.
    fn peaks(&self) -> String {
        let in_f32 = format!("{:.1} GFLOP/s", self.matmul_gflops_f32);
        match self.precision {
            Precision::F32 => in_f32,
            half => format!(
                "{:.1} GFLOP/s in {half} (train), {in_f32} in f32 (inference)",
                self.matmul_gflops
            ),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [preset, device] = [&self.preset, &self.device].map(printable);
        write!(f, "{preset}")?;
        if self.precision != Precision::F32 {
            write!(f, " in {}", self.precision)?;
        }
        write!(f, " on {device}")?;
        if let Some(name) = self.instruction_set {
            write!(f, ", {name}")?;
        }
        let memory = match self.is_memory_per_row {
            true => "peak memory",
            false => "peak memory so far",
        };
        let mut table = Table::new(["", "batch", "images/s", "GFLOP/s", "of the peak", memory]);
        for (name, speeds) in [("train", &self.train), ("inference", &self.inference)] {
            for speed in speeds {
                let mebibytes = speed.peak_memory_bytes.map(|bytes| bytes >> 20);
                table.row([
                    name.to_string(),
                    speed.batch.to_string(),
                    format!("{:.0}", speed.images_per_second),
                    format!("{:.1}", speed.gflops),
                    format!("{:.0}%", 100.0 * speed.matmul_share),
                    mebibytes.map_or("unknown".into(), |mebibytes| format!("{mebibytes} MiB")),
                ]);
            }
        }
        write!(f, "\n{table}\n\n")?;
        if let Some(Percentiles { p50, p90, p99 }) = self.latency {
            let [p50, p90, p99] = [p50, p90, p99].map(|seconds| format!("{:.3} ms", 1e3 * seconds));
            writeln!(f, "latency of one image: p50 {p50}, p90 {p90}, p99 {p99}")?;
        }
        write!(
            f,
            "peak: a matrix product of {MATRIX_SIZE}x{MATRIX_SIZE}, {}\n\
             GFLOP/s: two operations per multiply-add of `trainer summary`, in training also of the gradients.\n\
             Kernels that need fewer multiplications (Winograd, skipped zeros) can exceed 100% of the peak.",
            self.peaks()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let speed = |batch, images_per_second, bytes| Speed {
            batch,
            images_per_second,
            gflops: images_per_second / 2.0,
            matmul_share: images_per_second / 800.0,
            peak_memory_bytes: bytes,
        };
        Report {
            device: "flex (CPU, 2 threads)".into(),
            preset: "vgg".into(),
            precision: Precision::F32,
            threads: 2,
            instruction_set: Some("avx2"),
            matmul_gflops: 400.0,
            matmul_gflops_f32: 400.0,
            train: vec![speed(64, 400.4, Some(700 << 20))],
            inference: vec![speed(1, 1000.0, Some(90 << 20)), speed(512, 90.0, None)],
            latency: Some(Percentiles {
                p50: 0.00142,
                p90: 0.0015,
                p99: 0.0123,
            }),
            is_memory_per_row: true,
        }
    }

    #[test]
    fn prints_an_aligned_table() {
        let expected = "\
vgg on flex (CPU, 2 threads), avx2
           batch  images/s  GFLOP/s  of the peak  peak memory
train         64       400    200.2          50%      700 MiB
inference      1      1000    500.0         125%       90 MiB
inference    512        90     45.0          11%      unknown

latency of one image: p50 1.420 ms, p90 1.500 ms, p99 12.300 ms
peak: a matrix product of 1024x1024, 400.0 GFLOP/s
GFLOP/s: two operations per multiply-add of `trainer summary`, in training also of the gradients.
Kernels that need fewer multiplications (Winograd, skipped zeros) can exceed 100% of the peak.";
        assert_eq!(report().to_string(), expected);
    }

    #[test]
    fn names_the_peaks_of_both_number_formats() {
        let report = Report {
            precision: Precision::Bf16,
            matmul_gflops: 250.0,
            instruction_set: None,
            latency: None,
            is_memory_per_row: false,
            ..report()
        };
        let text = report.to_string();
        assert!(
            text.starts_with("vgg in bf16 on flex (CPU, 2 threads)\n"),
            "{text}"
        );
        let peaks = "\n\npeak: a matrix product of 1024x1024, 250.0 GFLOP/s in bf16 (train), 400.0 GFLOP/s in f32 \
                     (inference)\n";
        assert!(text.contains(peaks), "{text}");
        assert!(text.contains("  peak memory so far\n"), "{text}");
    }
}
