from .bad_batches import replay as replay
from .cross_validation import cross_val_predict as cross_val_predict
from .process import work as work
from .subsets import learning_curve as learning_curve
from .subsets import plan_learning_curve as plan_learning_curve
