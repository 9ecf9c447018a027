//! Probable label errors by confident learning; Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in
//! Dataset Labels" (2021), arXiv 1911.00068.

use classifier::Probabilities;

/// An image whose label is probably wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LabelError {
    /// Index of the image.
    pub(crate) index: usize,
    pub(crate) label: usize,
    pub(crate) probability_of_label: f32,
    /// The class that the image probably has.
    pub(crate) suggested: usize,
    pub(crate) probability: f32,
}

/// Returns the probable label errors, the likeliest first. The probabilities of an image are those of a network that was not
/// trained on it.
///
/// A class is confident about an image if its probability is at least the mean over the images with its label. An image is
/// a probable error if the most likely one of its confident classes is not its label. The margin of the probabilities of both
/// gives the order.
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
        let confident = probabilities.ranked().into_iter();
        let mut confident =
            confident.filter(|(class, probability)| f64::from(*probability) >= thresholds[*class]);
        let (suggested, probability) = confident.next().filter(|(class, _)| *class != label)?;
        Some(LabelError {
            index,
            label,
            probability_of_label: probabilities.as_slice()[label],
            suggested,
            probability,
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
        // The fifth image is confidently of class 1; the last one is uncertain.
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!((errors[0].index, errors[0].suggested), (4, 1));
    }
}
