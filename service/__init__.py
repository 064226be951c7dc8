"""Three rooms. Yours: features.py, settings.py, and each feature that lies beside them.

The sample: the feature that features.py marks so, with all that is its own in one folder; remove it when you have read
it. The platform: platform/, which makes the promise and comes with updates. Start reading at platform/process/main.py:
the life of the process, top to bottom.
"""
