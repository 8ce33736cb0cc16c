import pytest

from advtrain.training.loop import TrainingData
from tests.training.tiny import tiny_data


@pytest.fixture(scope="session")
def data() -> TrainingData:
    return tiny_data()
