"""Networks of tokens: language models, classifiers of sentences, infilling networks."""
