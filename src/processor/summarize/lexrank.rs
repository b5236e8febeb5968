//! Continuous LexRank: Erkan and Radev, "LexRank: Graph-based Lexical Centrality as Salience in Text Summarization", Journal
//! of Artificial Intelligence Research 22 (2004), section 3.3.
//!
//! A sentence is as central as those that it resembles. Resemblance is the cosine of tf-idf vectors, idf over the sentences
//! of the text itself. The matrix of all pairs is never made: it is the product of the vectors with themselves, and so is
//! what it does to a vector. A step takes time and memory by the words of the text.

use std::collections::HashMap;

/// The chance of going to any sentence instead of a similar one; what the authors use.
const DAMPING: f64 = 0.15;
/// The scores are known once a step changes them by less than this, all together.
const PRECISION: f64 = 1e-6;
const STEPS_MAX: usize = 100;

/// The sentences of a text as bags of words.
#[derive(Debug, Default)]
pub struct Graph {
    numbers: HashMap<String, usize>,
    /// For each sentence its words, by number, with how often each is there.
    sentences: Vec<Vec<(usize, f64)>>,
    /// For each word the number of sentences that have it.
    frequency: Vec<usize>,
}

impl Graph {
    /// Takes in the next sentence.
    pub fn add(&mut self, words: impl Iterator<Item = String>) {
        let mut counts: HashMap<usize, f64> = HashMap::new();
        for word in words {
            let next = self.numbers.len();
            let number = *self.numbers.entry(word).or_insert(next);
            *counts.entry(number).or_default() += 1.0;
        }
        self.frequency.resize(self.numbers.len(), 0);
        let mut sentence: Vec<_> = counts.into_iter().collect();
        // The same order for the same text, so that sums are the same to the last digit.
        sentence.sort_unstable_by_key(|(number, _)| *number);
        sentence.iter().for_each(|(number, _)| self.frequency[*number] += 1);
        self.sentences.push(sentence);
    }

    /// Begins to rank them.
    pub fn rank(self) -> Ranking {
        let total = self.sentences.len() as f64;
        let idf: Vec<f64> = self.frequency.iter().map(|count| (total / *count as f64).ln()).collect();
        let mut vectors = self.sentences;
        for vector in &mut vectors {
            vector.iter_mut().for_each(|(word, weight)| *weight *= idf[*word]);
            let length = vector.iter().map(|(_, weight)| weight * weight).sum::<f64>().sqrt();
            if length > 0.0 {
                vector.iter_mut().for_each(|(_, weight)| *weight /= length);
            }
        }
        let words = idf.len();
        let mut ranking =
            Ranking { scores: Vec::new(), degrees: Vec::new(), vectors, words, steps: 0, change: 1.0 };
        ranking.degrees = ranking.resemblance(&vec![1.0; ranking.vectors.len()]);
        ranking.scores = vec![1.0 / total.max(1.0); ranking.vectors.len()];
        ranking
    }
}

/// A power iteration over the sentences.
#[derive(Debug)]
pub struct Ranking {
    /// Unit vectors, or nothing for a sentence whose words are in all of them.
    vectors: Vec<Vec<(usize, f64)>>,
    words: usize,
    /// How much each sentence resembles all of them together.
    degrees: Vec<f64>,
    scores: Vec<f64>,
    steps: usize,
    /// What the last step changed.
    change: f64,
}

impl Ranking {
    /// Takes another step; whether there is more to do.
    pub fn step(&mut self) -> bool {
        let count = self.vectors.len() as f64;
        let shares: Vec<f64> =
            self.scores.iter().zip(&self.degrees).map(|(score, degree)| share(*score, *degree)).collect();
        // What a sentence that resembles none has to give goes to all alike.
        let lonely: f64 =
            self.scores.iter().zip(&self.degrees).filter(|(_, degree)| **degree <= 0.0).map(|(s, _)| s).sum();
        let received = self.resemblance(&shares);
        let next: Vec<f64> = received
            .into_iter()
            .map(|received| DAMPING / count + (1.0 - DAMPING) * (received + lonely / count))
            .collect();
        self.change = next.iter().zip(&self.scores).map(|(new, old)| (new - old).abs()).sum();
        self.scores = next;
        self.steps += 1;
        self.change > PRECISION && self.steps < STEPS_MAX
    }

    /// How much of it is done, from 0 to 1. Each step takes about the same part off what is still wrong, so it is the
    /// logarithm of that which goes down evenly.
    pub fn done(&self) -> f64 {
        (self.change.ln() / PRECISION.ln()).clamp(self.steps as f64 / STEPS_MAX as f64, 1.0)
    }

    /// The score of each sentence; all together they are 1.
    pub fn scores(self) -> Vec<f64> {
        self.scores
    }

    /// What the matrix of resemblances does to a vector over the sentences.
    fn resemblance(&self, vector: &[f64]) -> Vec<f64> {
        let mut by_word = vec![0.0; self.words];
        for (sentence, value) in self.vectors.iter().zip(vector) {
            sentence.iter().for_each(|(word, weight)| by_word[*word] += weight * value);
        }
        let dot = |sentence: &Vec<(usize, f64)>| {
            sentence.iter().map(|(word, weight)| weight * by_word[*word]).sum()
        };
        self.vectors.iter().map(dot).collect()
    }
}

fn share(score: f64, degree: f64) -> f64 {
    if degree > 0.0 { score / degree } else { 0.0 }
}

/// The `count` best sentences in the order of the text; of those that are equal the earlier ones.
pub fn best(scores: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|one, other| scores[*other].total_cmp(&scores[*one]).then(one.cmp(other)));
    order.truncate(count);
    order.sort_unstable();
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scores(sentences: &[&str]) -> Vec<f64> {
        let mut graph = Graph::default();
        sentences.iter().for_each(|sentence| graph.add(sentence.split(' ').map(str::to_owned)));
        let mut ranking = graph.rank();
        while ranking.step() {}
        ranking.scores()
    }

    /// The same by the matrix of all pairs, as the paper writes it down.
    fn by_the_book(sentences: &[&str]) -> Vec<f64> {
        let bags: Vec<Vec<&str>> = sentences.iter().map(|sentence| sentence.split(' ').collect()).collect();
        let count = bags.len() as f64;
        let tf = |bag: &Vec<&str>, word: &str| bag.iter().filter(|other| **other == word).count() as f64;
        let idf = |word: &str| (count / bags.iter().filter(|bag| bag.contains(&word)).count() as f64).ln();
        let mut vocabulary: Vec<&str> = bags.concat();
        vocabulary.sort_unstable();
        vocabulary.dedup();
        let vectors: Vec<Vec<f64>> = bags
            .iter()
            .map(|bag| vocabulary.iter().map(|word| tf(bag, word) * idf(word)).collect())
            .collect();
        let length = |vector: &Vec<f64>| vector.iter().map(|x| x * x).sum::<f64>().sqrt();
        let cosine = |a: &Vec<f64>, b: &Vec<f64>| {
            a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>() / (length(a) * length(b))
        };
        let matrix: Vec<Vec<f64>> =
            vectors.iter().map(|row| vectors.iter().map(|column| cosine(row, column)).collect()).collect();
        let mut p = vec![1.0 / count; bags.len()];
        for _ in 0..200 {
            let step = |i: usize| -> f64 {
                let sum = |j: usize| matrix[i][j] / matrix.iter().map(|row| row[j]).sum::<f64>() * p[j];
                DAMPING / count + (1.0 - DAMPING) * (0..bags.len()).map(sum).sum::<f64>()
            };
            p = (0..bags.len()).map(step).collect();
        }
        p
    }

    #[test]
    fn the_scores_are_those_of_the_paper() {
        let text = [
            "the cat sat down",
            "the cat ran off",
            "a dog sat there",
            "the dog and the cat ran",
            "birds fly",
        ];

        for (quick, slow) in scores(&text).into_iter().zip(by_the_book(&text)) {
            assert!((quick - slow).abs() < 1e-5, "{quick} is not {slow}");
        }
    }

    #[test]
    fn what_resembles_most_others_comes_first() {
        let text = ["apples are red", "apples and pears are fruit", "pears are green", "nobody came today"];

        assert_eq!(best(&scores(&text), 1), [1]);
        assert_eq!(best(&scores(&text), 9), [0, 1, 2, 3]);
    }

    #[test]
    fn sentences_that_say_the_same_have_the_same_score() {
        let text = scores(&["all alike"; 4]);

        assert!(text.iter().all(|score| (score - 0.25).abs() < 1e-9), "{text:?}");
        assert_eq!(best(&text, 2), [0, 1]);
        assert_eq!(scores(&["alone"]), [1.0]);
        assert_eq!(scores(&[]), [0.0; 0]);
    }

    proptest! {
        #[test]
        fn scores_add_up_to_one_and_nobody_has_none(
            sentences in prop::collection::vec(prop::collection::vec("[a-f]", 1..6), 1..20)
        ) {
            let sentences: Vec<String> = sentences.iter().map(|words| words.join(" ")).collect();
            let scores = scores(&sentences.iter().map(String::as_str).collect::<Vec<_>>());

            prop_assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{:?}", scores);
            prop_assert!(scores.iter().all(|score| *score >= DAMPING / scores.len() as f64 - 1e-9));
        }
    }
}
