//! Suggestions for mistyped names: "did you mean".

/// Jaro-Winkler similarity that a suggestion must exceed.
const MIN_SIMILARITY: f64 = 0.8;

/// Returns ` (did you mean NAME?)` for the candidate most similar to `text`, or an empty string if none is
/// similar.
pub(crate) fn did_you_mean<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> String {
    candidates
        .into_iter()
        .map(|candidate| (similarity(text, candidate), candidate))
        .filter(|((name, _), _)| *name > MIN_SIMILARITY)
        .max_by(|(a, _), (b, _)| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)))
        .map_or_else(String::new, |(_, near)| format!(" (did you mean {near}?)"))
}

/// Returns the similarity of the last parts of two keys and that of the whole keys, each from 0 to 1. The last
/// parts count first: a setting in the wrong section is more likely meant than another one of its section.
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
    fn suggests_similar_names_only() {
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
