//! The choice of test images by hashes, for data without a test split.

/// About one in this many images of each class is a test image.
pub(crate) const TEST_DIVISOR: usize = 5;

/// Returns for each image of a class whether it is a test image: if its hash is in the lowest fifth of all hashes. So the
/// decision for an image does not depend on other images, except that a class with two or more different hashes has at least
/// one of them on each side.
pub(crate) fn select_by_hash(hashes: &[u64]) -> Vec<bool> {
    let limit = u64::MAX / TEST_DIVISOR as u64;
    let (Some(&lowest), Some(&highest)) = (hashes.iter().min(), hashes.iter().max()) else {
        return Vec::new();
    };
    let is_test = |&hash: &u64| match hash < limit {
        true => hash != highest,
        false => hash == lowest && lowest != highest,
    };
    hashes.iter().map(is_test).collect()
}
