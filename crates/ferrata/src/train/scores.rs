//! How good a classifier is: loss, accuracies, confusion.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::learner::Evaluated;

/// Sums over the examples of a validation part.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// The names of the classes.
    pub classes: Vec<String>,
    /// Examples that were seen.
    pub count: usize,
    /// Examples whose class had the highest score.
    pub top1: usize,
    /// Examples whose class was among the five highest scores.
    pub top5: usize,
    /// The sum of the losses.
    pub loss: f64,
    /// How often each class (row) was taken for each class (column).
    pub confusion: Vec<Vec<usize>>,
}

/// The file of the confusion matrix in a run folder.
const CONFUSION: &str = "confusion.csv";
/// Matrices of more classes are not shown, only what is confused most.
const SHOWN: usize = 12;
/// So many confusions are listed.
const LISTED: usize = 5;
/// Column titles are cut to this length.
const TITLE: usize = 8;

impl Scores {
    /// Nothing seen yet.
    pub fn new(classes: &[String]) -> Scores {
        let confusion = vec![vec![0; classes.len()]; classes.len()];
        let classes = classes.to_vec();
        Scores { classes, count: 0, top1: 0, top5: 0, loss: 0.0, confusion }
    }

    /// Counts an example of class `label` with these scores of all classes and this loss.
    pub fn add(&mut self, scores: &[f32], label: usize, loss: f64) {
        let Some(&own) = scores.get(label) else { return };
        // Equal scores count in the order of classes, and what is not a number counts against.
        let ahead = |(i, x): (usize, &f32)| i != label && !(*x < own || (*x == own && i > label));
        let rank = scores.iter().enumerate().filter(|other| ahead(*other)).count();
        self.count += 1;
        self.top1 += usize::from(rank == 0);
        self.top5 += usize::from(rank < 5);
        self.loss += loss;
        let best = |a: usize, b: usize| if scores[b] > scores[a] { b } else { a };
        if let Some(taken) = (0..scores.len()).reduce(best) {
            self.confusion[label][taken] += 1;
        }
    }

    /// A part of the examples, 0 to 1.
    fn share(&self, count: usize) -> f64 {
        count as f64 / self.count.max(1) as f64
    }

    /// The share of examples whose class had the highest score.
    pub fn accuracy(&self) -> f64 {
        self.share(self.top1)
    }

    /// The mean loss.
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.count.max(1) as f64
    }

    /// The measures by the names that they have in metrics.
    pub fn measures(&self) -> BTreeMap<&'static str, f64> {
        let mut measures = BTreeMap::from([("top1", self.accuracy())]);
        if self.classes.len() > 5 {
            measures.insert("top5", self.share(self.top5));
        }
        measures
    }

    /// What is confused, in lines for people: the matrix if it is small, else what is confused
    /// most.
    pub fn lines(&self) -> Vec<String> {
        match self.classes.len() {
            0..=SHOWN => self.matrix(),
            _ => self.most_confused(),
        }
    }

    fn matrix(&self) -> Vec<String> {
        let cut = |name: &String| name.chars().take(TITLE).collect::<String>();
        let names: Vec<String> = self.classes.iter().map(cut).collect();
        let row = |title: &str, cells: &mut dyn Iterator<Item = String>| {
            cells.fold(format!("{title:>TITLE$}"), |line, cell| format!("{line} {cell:>TITLE$}"))
        };
        let mut lines = vec![row("", &mut names.iter().cloned())];
        for (name, counts) in names.iter().zip(&self.confusion) {
            lines.push(row(name, &mut counts.iter().map(usize::to_string)));
        }
        lines
    }

    fn most_confused(&self) -> Vec<String> {
        let mut pairs: Vec<(usize, usize, usize)> = Vec::new();
        for (label, row) in self.confusion.iter().enumerate() {
            let wrong =
                row.iter().enumerate().filter(|(taken, count)| *taken != label && **count > 0);
            pairs.extend(wrong.map(|(taken, count)| (*count, label, taken)));
        }
        pairs.sort_by_key(|(count, label, taken)| (usize::MAX - count, *label, *taken));
        let line = |(count, label, taken): &(usize, usize, usize)| {
            let of: usize = self.confusion[*label].iter().sum();
            let (label, taken) = (&self.classes[*label], &self.classes[*taken]);
            format!("{label} taken for {taken}: {count} of {of}")
        };
        pairs.iter().take(LISTED).map(line).collect()
    }

    /// The confusion matrix as comma-separated values; rows are true classes.
    pub fn csv(&self) -> String {
        let quoted = |name: &String| format!("\"{}\"", name.replace('"', "\"\""));
        let names: Vec<String> = self.classes.iter().map(quoted).collect();
        let mut text = format!("\"class\",{}\n", names.join(","));
        for (name, row) in names.iter().zip(&self.confusion) {
            let counts: Vec<String> = row.iter().map(usize::to_string).collect();
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name},{}", counts.join(","));
        }
        text
    }

    pub(super) fn evaluated(&self) -> Evaluated {
        Evaluated {
            loss: self.mean_loss(),
            scores: self.measures(),
            report: self.lines(),
            files: vec![(CONFUSION, self.csv().into_bytes())],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("class{i}")).collect()
    }

    #[test]
    fn ranks_and_confusions_are_counted() {
        let mut scores = Scores::new(&classes(7));
        let order = [0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1];
        for (label, loss) in [(0, 1.0), (1, 2.0), (4, 3.0), (5, 4.0)] {
            scores.add(&order, label, loss);
        }
        assert_eq!((scores.count, scores.top1, scores.top5), (4, 1, 3));
        assert_eq!((scores.mean_loss(), scores.accuracy()), (2.5, 0.25));
        assert_eq!(scores.confusion[5][0], 1);
        assert_eq!(scores.measures()["top5"], 0.75);
    }

    #[test]
    fn ties_and_nan_are_no_success() {
        let mut scores = Scores::new(&classes(3));
        scores.add(&[0.5, 0.5, 0.5], 2, 0.0);
        scores.add(&[f32::NAN; 3], 1, 0.0);
        scores.add(&[0.1, f32::NAN, 0.2], 2, 0.0);
        assert_eq!((scores.count, scores.top1), (3, 0));
        scores.add(&[0.5, 0.5, 0.5], 0, 0.0);
        assert_eq!(scores.top1, 1);
    }

    #[test]
    fn confusion_is_shown_small_and_written_whole() {
        let mut scores = Scores::new(&["cat".to_owned(), "a \"dog\"".to_owned()]);
        scores.add(&[1.0, 2.0], 0, 0.0);
        assert_eq!(
            scores.csv(),
            "\"class\",\"cat\",\"a \"\"dog\"\"\"\n\"cat\",0,1\n\"a \"\"dog\"\"\",0,0\n"
        );
        assert_eq!(scores.lines()[1], "     cat        0        1");
        let mut many = Scores::new(&classes(20));
        (0..3).for_each(|_| many.add(&[&[0.0; 19][..], &[1.0]].concat(), 4, 0.0));
        assert_eq!(many.lines(), ["class4 taken for class19: 3 of 3"]);
    }
}
