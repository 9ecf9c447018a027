//! Probable label errors by confident learning; Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in
//! Dataset Labels" (2021), arXiv 1911.00068.

use classifier::Probabilities;

/// An image whose label a network contradicts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LabelError {
    /// Index of the image.
    pub(crate) index: usize,
    pub(crate) label: usize,
    pub(crate) probability_of_label: f32,
    /// The class that the image probably has.
    pub(crate) suggested: usize,
    pub(crate) probability: f32,
    /// Whether the network is as sure as it is of the images with the suggested label.
    pub(crate) is_confident: bool,
}

/// Returns the images whose label is not the most likely class, the likeliest errors first. The probabilities of an image are
/// those of a network that was not trained on it.
///
/// The margin of the probabilities of both classes gives the order. An error is confident if the probability of the suggested
/// class is at least the mean over the images with this label.
pub(crate) fn label_errors(probabilities: &[Probabilities], labels: &[usize]) -> Vec<LabelError> {
    let classes = probabilities
        .first()
        .map_or(0, |first| first.as_slice().len());
    let mut sums = vec![(0.0, 0usize); classes];
    for (probabilities, &label) in probabilities.iter().zip(labels) {
        let (sum, count) = &mut sums[label];
        *sum += f64::from(probabilities.as_slice()[label]);
        *count += 1;
    }
    // No image is an example of a class without labels.
    let mean = |&(sum, count): &(f64, usize)| {
        if count == 0 {
            f64::INFINITY
        } else {
            sum / count as f64
        }
    };
    let thresholds: Vec<f64> = sums.iter().map(mean).collect();
    let error = |(index, (probabilities, &label)): (usize, (&Probabilities, &usize))| {
        let (suggested, probability) = probabilities.best();
        if suggested == label {
            return None;
        }
        Some(LabelError {
            index,
            label,
            probability_of_label: probabilities.as_slice()[label],
            suggested,
            probability,
            is_confident: f64::from(probability) >= thresholds[suggested],
        })
    };
    let mut errors: Vec<LabelError> = probabilities
        .iter()
        .zip(labels)
        .enumerate()
        .filter_map(error)
        .collect();
    let margin = |error: &LabelError| error.probability_of_label - error.probability;
    errors.sort_by(|a, b| {
        // Equal margins of -1: the smaller probability of the label comes first.
        (margin(a).total_cmp(&margin(b)))
            .then(a.probability_of_label.total_cmp(&b.probability_of_label))
    });
    errors
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;

    #[test]
    fn confident_disagreement_is_a_probable_error() {
        // Logits of three classes; the classes 0 and 1 have mean probabilities of about 0.75.
        let logits = [
            [4.0, 0.0, 0.0],
            [3.0, 0.0, 0.0],
            [0.0, 5.0, 0.0],
            [0.0, 4.0, 0.0],
            [0.0, 6.0, 0.0],
            [0.9, 1.0, 0.0],
        ];
        let logits = Tensor::<2>::from_floats(logits, &Device::default());
        let probabilities = Probabilities::from_logits(logits).unwrap();
        let errors = label_errors(&probabilities, &[0, 0, 1, 1, 0, 0]);
        // The fifth image is confidently of class 1, the last one uncertainly.
        let found: Vec<_> = errors
            .iter()
            .map(|error| (error.index, error.suggested, error.is_confident))
            .collect();
        assert_eq!(found, [(4, 1, true), (5, 1, false)], "{errors:?}");
    }
}
