from workshop import Chain
def test_x(chain: Chain, amount_chain: Chain):
    print(chain.trained.trained.metrics, chain.selected.selection, chain.training_run, len(chain.training_runs))
    print(chain.observed, chain.deployed)
    print(amount_chain.trained.trained.metrics, amount_chain.selected.selection.rationale)
    assert 0
