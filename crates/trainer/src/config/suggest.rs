//! "Did you mean".

/// Below this similarity a suggestion would be a guess.
const LEAST_SIMILARITY: f64 = 0.8;

/// ` (did you mean NEAR?)` for the candidate that `text` was probably meant to be, or nothing.
pub(crate) fn did_you_mean<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> String {
    candidates
        .into_iter()
        .map(|candidate| (similarity(text, candidate), candidate))
        .filter(|((name, _), _)| *name > LEAST_SIMILARITY)
        .max_by(|(a, _), (b, _)| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)))
        .map_or_else(String::new, |(_, near)| format!(" (did you mean {near}?)"))
}

/// From 0 to 1, of the names and then of the whole paths: a setting under the wrong section is a
/// near miss, another one of the same section is not.
fn similarity(text: &str, candidate: &str) -> (f64, f64) {
    let name = |path: &str| path.rsplit('.').next().unwrap_or(path).to_string();
    (
        strsim::jaro_winkler(&name(text), &name(candidate)),
        strsim::jaro_winkler(text, candidate),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_found_and_far_ones_are_not() {
        let presets = ["convnet", "dense", "tiny"];
        assert_eq!(did_you_mean("covnet", presets), " (did you mean convnet?)");
        assert_eq!(did_you_mean("resnet50", presets), "");
        let keys = ["training.batch_size", "training.epochs"];
        assert_eq!(
            did_you_mean("batch_size", keys),
            " (did you mean training.batch_size?)"
        );
        assert_eq!(did_you_mean("training.images", keys), "");
    }
}
