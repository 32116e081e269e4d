from .card import model_card as model_card
from .page import report as report
from .page import report_anew as report_anew
from .page import report_at_the_end as report_at_the_end
