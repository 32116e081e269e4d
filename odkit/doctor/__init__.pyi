from .checks import check as check
